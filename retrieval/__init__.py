"""The room where documents are looked up: load, cut, embed, index, search. It imports only storage."""
