-- A home as the first release wrote it: the schema of step `first`, word for word, and a few rows.
-- Tests migrate it to the schema of today. It is never changed; a later release adds a file of its own.
CREATE TABLE _sqlite_migrations (
  id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT
);
CREATE UNIQUE INDEX idx__sqlite_migrations_migration_set_name ON _sqlite_migrations(migration_set, name);
INSERT INTO _sqlite_migrations VALUES (1, 'nightshift', 'first', '2026-11-20 09:00:00.000000+00:00');
CREATE TABLE questions (
  id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, user TEXT NOT NULL, channel TEXT NOT NULL,
  thread TEXT NOT NULL, asked_at TEXT NOT NULL
) STRICT;
CREATE INDEX questions_by_thread ON questions(channel, thread);
CREATE TABLE answers (
  id INTEGER PRIMARY KEY AUTOINCREMENT, question_id INTEGER NOT NULL REFERENCES questions(id), text TEXT NOT NULL,
  route TEXT NOT NULL CHECK (route IN ('APPROVED','MEMORISED','RETRIEVED','ABSTAINED')),
  style TEXT NOT NULL CHECK (style IN ('direct','related','generated','quoted','none')),
  confidence REAL NOT NULL CHECK (confidence BETWEEN 0 AND 1), model_version TEXT NOT NULL,
  taught_question TEXT NOT NULL, correction_id INTEGER, sources TEXT NOT NULL, features TEXT NOT NULL,
  timings TEXT NOT NULL, answered_at TEXT NOT NULL
) STRICT;
CREATE INDEX answers_by_question ON answers(question_id);
CREATE TABLE feedback (
  answer_id INTEGER NOT NULL REFERENCES answers(id), user TEXT NOT NULL, vote INTEGER NOT NULL CHECK (vote IN (-1, 1)),
  reason TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (answer_id, user)
) STRICT;
CREATE TABLE corrections (
  id INTEGER PRIMARY KEY AUTOINCREMENT, question TEXT NOT NULL CHECK (length(question) > 0),
  answer TEXT NOT NULL CHECK (length(answer) > 0), author TEXT NOT NULL CHECK (length(author) > 0),
  source TEXT NOT NULL, scope TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending','approved','rejected','withdrawn','superseded')),
  created_at TEXT NOT NULL, answer_id INTEGER REFERENCES answers(id),
  supersedes INTEGER REFERENCES corrections(id), reviewer TEXT NOT NULL DEFAULT '',
  reviewed_at TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', approved_by TEXT,
  CHECK (approved_by IS NULL OR (approved_by <> '' AND approved_by <> author)),
  CHECK (status NOT IN ('approved', 'superseded') OR approved_by IS NOT NULL)
) STRICT;
CREATE INDEX corrections_by_status ON corrections(status);
CREATE TABLE wordings (
  id INTEGER PRIMARY KEY AUTOINCREMENT, correction_id INTEGER NOT NULL REFERENCES corrections(id),
  text TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('taught','generated','asked','rejected')),
  vector BLOB, UNIQUE (correction_id, text)
) STRICT;
CREATE TABLE documents (
  id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, scope TEXT NOT NULL, title TEXT NOT NULL, url TEXT NOT NULL,
  sha256 TEXT NOT NULL, ingested_at TEXT NOT NULL, UNIQUE (path, scope)
) STRICT;
CREATE TABLE passages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, document_id INTEGER NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
  position INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL, section TEXT NOT NULL, vector BLOB NOT NULL
) STRICT;
CREATE INDEX passages_by_document ON passages(document_id);
CREATE VIRTUAL TABLE passages_fts USING fts5(titled, tokenize = 'porter unicode61');
CREATE TABLE index_outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, passage_id INTEGER NOT NULL, operation TEXT NOT NULL
  CHECK (operation IN ('add', 'remove'))
) STRICT;
CREATE TABLE model_versions (
  version TEXT PRIMARY KEY, parent TEXT NOT NULL, created_at TEXT NOT NULL, path TEXT NOT NULL,
  adapter_path TEXT NOT NULL, manifest_sha256 TEXT NOT NULL, snapshot_sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
  gates TEXT NOT NULL, confidence TEXT NOT NULL
) STRICT;
CREATE TABLE aliases (
  name TEXT PRIMARY KEY CHECK (name IN ('champion', 'previous', 'candidate')),
  version TEXT NOT NULL REFERENCES model_versions(version)
) STRICT;
CREATE TABLE memories (
  version TEXT NOT NULL REFERENCES model_versions(version), correction_id INTEGER NOT NULL REFERENCES corrections(id),
  memorised INTEGER NOT NULL CHECK (memorised IN (0, 1)), proof TEXT NOT NULL, PRIMARY KEY (version, correction_id)
) STRICT;
CREATE TABLE calibration_rows (
  id INTEGER PRIMARY KEY AUTOINCREMENT, head TEXT NOT NULL, kind TEXT NOT NULL, fact TEXT NOT NULL,
  asked TEXT NOT NULL, correct INTEGER NOT NULL CHECK (correct IN (0, 1)), features TEXT NOT NULL, version TEXT NOT NULL
) STRICT;
CREATE TABLE nightly_runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, started_at TEXT NOT NULL, finished_at TEXT NOT NULL DEFAULT '',
  outcome TEXT NOT NULL, version TEXT NOT NULL DEFAULT '', parent TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '', report TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE TABLE notices (
  id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL,
  created_at TEXT NOT NULL, delivered_at TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE events_seen (key TEXT PRIMARY KEY, seen_at TEXT NOT NULL) STRICT;
CREATE TABLE posts (
  answer_id INTEGER NOT NULL DEFAULT 0, correction_id INTEGER NOT NULL DEFAULT 0, channel TEXT NOT NULL,
  ts TEXT NOT NULL, PRIMARY KEY (channel, ts)
) STRICT;
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO state VALUES ('taught_revision', 0), ('documents_revision', 0);
CREATE TRIGGER four_eyes_on_insert BEFORE INSERT ON corrections WHEN NEW.status <> 'pending'
BEGIN SELECT RAISE(ABORT, 'a correction starts pending'); END;
CREATE TRIGGER four_eyes_on_update BEFORE UPDATE ON corrections
WHEN NEW.status = 'approved' AND (NEW.approved_by IS NULL OR NEW.approved_by = NEW.author OR NEW.author <> OLD.author)
BEGIN SELECT RAISE(ABORT, 'the author of a correction may not approve it'); END;
CREATE TRIGGER taught_by_correction AFTER UPDATE ON corrections
BEGIN UPDATE state SET value = value + 1 WHERE name = 'taught_revision'; END;
CREATE TRIGGER taught_by_wording AFTER INSERT ON wordings
BEGIN UPDATE state SET value = value + 1 WHERE name = 'taught_revision'; END;
CREATE TRIGGER taught_by_alias_insert AFTER INSERT ON aliases
BEGIN UPDATE state SET value = value + 1 WHERE name = 'taught_revision'; END;
CREATE TRIGGER taught_by_alias_update AFTER UPDATE ON aliases
BEGIN UPDATE state SET value = value + 1 WHERE name = 'taught_revision'; END;
CREATE TRIGGER taught_by_alias_delete AFTER DELETE ON aliases
BEGIN UPDATE state SET value = value + 1 WHERE name = 'taught_revision'; END;
CREATE TRIGGER documents_by_outbox AFTER INSERT ON index_outbox
BEGIN UPDATE state SET value = value + 1 WHERE name = 'documents_revision'; END;

INSERT INTO questions VALUES
  (1, 'When is payday?', 'U1ANA', 'C1', '1.0', '2026-11-20T09:00:00.000000+00:00'),
  (2, 'Who runs the mentorship program?', 'U2BEN', 'C1', '2.0', '2026-11-20T09:01:00.000000+00:00');
INSERT INTO answers VALUES
  (1, 1, 'On day 25.', 'RETRIEVED', 'quoted', 0.5, 'base', '', NULL, '[]', '{}', '{}',
   '2026-11-20T09:00:01.000000+00:00');
INSERT INTO feedback VALUES (1, 'U1ANA', -1, 'wrong', '2026-11-20T09:00:02.000000+00:00');
INSERT INTO corrections (id, question, answer, author, source, scope, status, created_at, answer_id) VALUES
  (1, 'When is payday?', 'On day 24.', 'U1ANA', '', 'workspace', 'pending', '2026-11-20T09:00:03.000000+00:00', 1),
  (2, 'Who is on call?', 'Ask in #ops.', 'U2BEN', '', 'workspace', 'pending', '2026-11-20T09:00:04.000000+00:00', NULL);
UPDATE corrections SET status = 'approved', reviewer = 'U2BEN', approved_by = 'U2BEN',
  reviewed_at = '2026-11-20T09:00:05.000000+00:00' WHERE id = 1;
INSERT INTO wordings (correction_id, text, kind) VALUES (1, 'When is payday?', 'taught'), (2, 'Who is on call?', 'taught');
INSERT INTO model_versions VALUES ('base', '', '2026-11-20T09:00:00.000000+00:00', 'models/base', '', '', '', 1, '[]', '{}');
INSERT INTO aliases VALUES ('champion', 'base');
