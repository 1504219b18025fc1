"""The schema, as steps that are only ever appended.

Each step runs once, in one transaction, recorded by sqlite-utils. A step that has shipped is never edited.
Constraints stand here and not only in code, because other programs may open the file: four eyes, one vote
per person and answer, one fate per correction and model.
"""

from sqlite_utils import Database, Migrations

migrations = Migrations("nightshift")

FIRST = """
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
BEGIN UPDATE state SET value = value + 1 WHERE name = 'documents_revision'; END
"""


@migrations()
def first(db: Database) -> None:
    """Everything that issue A stores."""
    for statement in split_statements(FIRST):
        db.execute(statement)


CHANNEL_SETTINGS = """
CREATE TABLE channel_settings (
  channel TEXT PRIMARY KEY, mention_only INTEGER NOT NULL CHECK (mention_only IN (0, 1)),
  questions_only INTEGER NOT NULL CHECK (questions_only IN (0, 1)),
  citations_required INTEGER NOT NULL CHECK (citations_required IN (0, 1)),
  private_answers INTEGER NOT NULL CHECK (private_answers IN (0, 1)),
  allowed TEXT NOT NULL, person TEXT NOT NULL, revision INTEGER NOT NULL, changed_by TEXT NOT NULL,
  changed_at TEXT NOT NULL
) STRICT;
CREATE TABLE conflicts (
  correction_id INTEGER NOT NULL REFERENCES corrections(id), other_id INTEGER NOT NULL REFERENCES corrections(id),
  kind TEXT NOT NULL CHECK (kind IN ('contradiction', 'duplicate')), PRIMARY KEY (correction_id, other_id)
) STRICT;
CREATE INDEX answers_by_correction ON answers(correction_id);
CREATE INDEX questions_by_time ON questions(asked_at)
"""


@migrations()
def channel_settings(db: Database) -> None:
    """How the bot behaves in each channel, what a correction was found to contradict, indexes of the home page."""
    for statement in split_statements(CHANNEL_SETTINGS):
        db.execute(statement)


AUDIT_LOG = """
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, payload TEXT NOT NULL, previous TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_kind ON audit(kind);
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever appended to'); END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever appended to'); END;
CREATE TRIGGER audit_is_in_order BEFORE INSERT ON audit
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM audit)
  OR NEW.previous IS NOT coalesce((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), 'genesis')
BEGIN SELECT RAISE(ABORT, 'an audit entry must follow the last one'); END;
INSERT INTO state SELECT 'unlogged:questions', coalesce(max(id), 0) FROM questions;
INSERT INTO state SELECT 'unlogged:answers', coalesce(max(id), 0) FROM answers;
INSERT INTO state SELECT 'unlogged:corrections', coalesce(max(id), 0) FROM corrections;
INSERT INTO state SELECT 'unlogged:nightly_runs', coalesce(max(id), 0) FROM nightly_runs
"""


@migrations()
def audit_log(db: Database) -> None:
    """The hash-chained log; `unlogged:` rows say which ids are older than it."""
    for statement in split_statements(AUDIT_LOG):
        db.execute(statement)


ASKED_PEOPLE = """
CREATE TABLE asked_messages (
  channel TEXT NOT NULL, ts TEXT NOT NULL, thread TEXT NOT NULL, said TEXT NOT NULL,
  question_id INTEGER NOT NULL REFERENCES questions(id), PRIMARY KEY (channel, ts)
) STRICT;
CREATE INDEX asked_messages_by_thread ON asked_messages(channel, thread);
CREATE INDEX posts_by_answer ON posts(answer_id);
CREATE TABLE handoffs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, answer_id INTEGER NOT NULL REFERENCES answers(id), asker TEXT NOT NULL,
  person TEXT NOT NULL, channel TEXT NOT NULL DEFAULT '', thread TEXT NOT NULL DEFAULT '',
  ts TEXT NOT NULL DEFAULT '', opened_at TEXT NOT NULL, resolved_by TEXT NOT NULL DEFAULT '',
  resolved_at TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX handoffs_by_thread ON handoffs(channel, thread);
CREATE UNIQUE INDEX one_open_handoff ON handoffs(answer_id) WHERE resolved_at = ''
"""


@migrations()
def asked_people(db: Database) -> None:
    """Which Slack message asked which question, and whom the bot passed a question on to."""
    for statement in split_statements(ASKED_PEOPLE):
        db.execute(statement)


REVIEW_RULES = """
CREATE TABLE holds (
  correction_id INTEGER PRIMARY KEY REFERENCES corrections(id), alike TEXT NOT NULL, held_at TEXT NOT NULL,
  released_by TEXT NOT NULL DEFAULT '', released_at TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE edits (
  id INTEGER PRIMARY KEY AUTOINCREMENT, correction_id INTEGER NOT NULL REFERENCES corrections(id),
  editor TEXT NOT NULL CHECK (length(editor) > 0), at TEXT NOT NULL
) STRICT;
CREATE INDEX edits_by_correction ON edits(correction_id);
CREATE TABLE private_channels (channel TEXT PRIMARY KEY, noted_at TEXT NOT NULL) STRICT;
INSERT OR IGNORE INTO state VALUES ('four_eyes_on_text', 0);
CREATE TRIGGER origin_stays BEFORE UPDATE ON corrections WHEN NEW.author <> OLD.author OR NEW.scope <> OLD.scope
BEGIN SELECT RAISE(ABORT, 'who wrote a correction and who may see it do not change'); END;
CREATE TRIGGER approved_text_stays BEFORE UPDATE ON corrections
WHEN OLD.status = 'approved' AND NEW.status = 'approved' AND (NEW.question <> OLD.question OR NEW.answer <> OLD.answer)
BEGIN SELECT RAISE(ABORT, 'the text of an approved correction does not change'); END;
CREATE TRIGGER decided_stays BEFORE UPDATE ON corrections
WHEN OLD.status IN ('rejected', 'withdrawn', 'superseded') AND NEW.status <> OLD.status
BEGIN SELECT RAISE(ABORT, 'a correction that was closed stays closed'); END;
CREATE TRIGGER held_until_released BEFORE UPDATE ON corrections
WHEN NEW.status = 'approved' AND EXISTS (SELECT 1 FROM holds WHERE correction_id = NEW.id AND released_by = '')
BEGIN SELECT RAISE(ABORT, 'a correction that is held must be released first'); END;
CREATE TRIGGER four_eyes_on_text BEFORE UPDATE ON corrections
WHEN NEW.status = 'approved' AND OLD.status <> 'approved'
  AND (SELECT value FROM state WHERE name = 'four_eyes_on_text') = 1
  AND EXISTS (SELECT 1 FROM edits WHERE correction_id = NEW.id AND editor = NEW.approved_by)
BEGIN SELECT RAISE(ABORT, 'who changed the text of a correction may not approve it'); END;
CREATE TRIGGER holds_begin_held BEFORE INSERT ON holds
WHEN NEW.released_by <> '' OR EXISTS (SELECT 1 FROM holds WHERE correction_id = NEW.correction_id)
BEGIN SELECT RAISE(ABORT, 'a hold is begun once'); END;
CREATE TRIGGER holds_stay BEFORE DELETE ON holds
BEGIN SELECT RAISE(ABORT, 'a hold is released, never deleted'); END;
CREATE TRIGGER held_by_another BEFORE UPDATE ON holds
WHEN NEW.correction_id <> OLD.correction_id OR OLD.released_by <> '' OR NEW.released_by = ''
  OR NEW.released_by = (SELECT author FROM corrections WHERE id = NEW.correction_id)
BEGIN SELECT RAISE(ABORT, 'the author of a correction may not release it'); END;
CREATE TRIGGER edits_stay BEFORE DELETE ON edits
BEGIN SELECT RAISE(ABORT, 'who edited a correction is never forgotten'); END;
CREATE TRIGGER edits_do_not_change BEFORE UPDATE ON edits
BEGIN SELECT RAISE(ABORT, 'who edited a correction is never changed'); END
"""


@migrations()
def review_rules(db: Database) -> None:
    """Held corrections, who edited which, and what no program may change about a correction."""
    for statement in split_statements(REVIEW_RULES):
        db.execute(statement)


GROUNDS = """
CREATE TABLE grounds (
  id INTEGER PRIMARY KEY AUTOINCREMENT, correction_id INTEGER NOT NULL REFERENCES corrections(id), path TEXT NOT NULL,
  scope TEXT NOT NULL, title TEXT NOT NULL, heading TEXT, sha256 TEXT NOT NULL,
  stated REAL NOT NULL CHECK (stated BETWEEN 0 AND 1), noted_at TEXT NOT NULL
) STRICT;
CREATE INDEX grounds_by_correction ON grounds(correction_id)
"""


@migrations()
def grounds(db: Database) -> None:
    """The pages that each correction rests on, as they read when it was approved; a heading of NULL is all the page."""
    for statement in split_statements(GROUNDS):
        db.execute(statement)


@migrations()
def suggestions(db: Database) -> None:
    """The taught questions that were offered where the bot had no answer: a JSON list of correction_id and question."""
    db.execute("ALTER TABLE answers ADD COLUMN suggestions TEXT NOT NULL DEFAULT '[]'")


@migrations()
def repeats(db: Database) -> None:
    """Which question is asked anew, by a press or a second look: the two are one question in every figure."""
    db.execute("ALTER TABLE questions ADD COLUMN repeats INTEGER REFERENCES questions(id)")


@migrations()
def vectors_by_model(db: Database) -> None:
    """Which sentence model made the vector of a wording; those of which nobody noted it are made anew."""
    db.execute("ALTER TABLE wordings ADD COLUMN embedder TEXT NOT NULL DEFAULT ''")
    db.execute("UPDATE wordings SET vector = NULL")


def split_statements(script: str) -> list[str]:
    """The single statements of a script; a trigger body ends with END and stays whole."""
    statements, current = [], ""
    for piece in script.split(";"):
        current += piece + ";"
        if "BEGIN" not in current or current.rstrip("; \n").endswith("END"):
            statements.append(current.strip().rstrip(";"))
            current = ""
    return [s for s in statements if s]
