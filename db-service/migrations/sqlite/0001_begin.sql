-- Data are keyed by conversation (conversations, entries, members, absences, entry_states, reactions) or by user (users, sessions,
-- settings, blocks, profiles). No statement names tables of both kinds. `key` never leaves this database.

-- One row. `now` is the generation of the data, which changes when they are restored from a backup or moved. `before` is the
-- previous generation. `is_copy`: the data are an unused backup; the program that opens them begins a generation.
CREATE TABLE generation (now INTEGER NOT NULL, before INTEGER NOT NULL, is_copy INTEGER NOT NULL) STRICT;
INSERT INTO generation VALUES (0, 0, 0);

-- The position in each partition of the log, raised by the transaction that saves a part of it: the records from `first_offset` up to
-- `next_offset`, exclusive, are decided. An entry of them that is not stored was rejected. Each database
-- has positions of its own, for the conversations that it holds.
CREATE TABLE log_positions (
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  first_offset INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;

-- `head` and `countable` are the conversation_seq and the countable_seq of the last entry. `shown` is the conversation_seq of the
-- last entry that does not change another entry, and `last_sent_at_ms` is when that entry was sent. `kept` is the last
-- conversation_seq from before this generation. A group whose head is 0 does not exist yet; only the transaction that creates it
-- sees such a row.
CREATE TABLE conversations (
  key INTEGER PRIMARY KEY,
  app TEXT NOT NULL,
  id TEXT NOT NULL,
  head INTEGER NOT NULL,
  countable INTEGER NOT NULL,
  shown INTEGER NOT NULL,
  last_sent_at_ms INTEGER NOT NULL,
  kept INTEGER NOT NULL DEFAULT 0,
  members_version INTEGER NOT NULL,
  name TEXT NOT NULL,
  history INTEGER NOT NULL,
  UNIQUE (app, id)
) STRICT;

-- `payload` is the encoded Entry without `conversation` and `message_id`. It is never updated. `countable` is the countable_seq,
-- and `counts` says whether the entry itself is countable. `kind` is NULL for a message. `target_seq` is the conversation_seq of
-- the entry that this one refers to, NULL if there is none.
CREATE TABLE entries (
  conversation INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  countable INTEGER NOT NULL,
  sent_at_ms INTEGER NOT NULL,
  target_seq INTEGER,
  counts INTEGER NOT NULL,
  message_id BLOB NOT NULL,
  sender TEXT NOT NULL,
  kind TEXT,
  payload BLOB NOT NULL,
  PRIMARY KEY (conversation, seq),
  UNIQUE (conversation, message_id)
) STRICT;
CREATE INDEX entries_of_target ON entries (conversation, target_seq) WHERE target_seq IS NOT NULL;

-- A member who leaves keeps the row, with role 0. `visible_until` and `left_countable` are then the last conversation_seq that the
-- user can see and the countable_seq of that entry; NULL for a member. `excluded` is the number of countable entries after
-- `read_seq` that do not count as unread: the user's own, recalled ones, and those of absences.
CREATE TABLE members (
  conversation INTEGER NOT NULL,
  visible_from INTEGER NOT NULL,
  visible_until INTEGER,
  left_countable INTEGER,
  read_seq INTEGER NOT NULL,
  read_countable INTEGER NOT NULL,
  excluded INTEGER NOT NULL,
  joined INTEGER NOT NULL,
  role INTEGER NOT NULL,
  app TEXT NOT NULL,
  user_id TEXT NOT NULL,
  PRIMARY KEY (conversation, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_of_user ON members (app, user_id);

-- Entries between `after_seq` and `before_seq`, both exclusive, that a user can't see, because the user was not a member then and
-- later members of the group see no earlier entries. `countable` of them are countable.
CREATE TABLE absences (
  conversation INTEGER NOT NULL,
  after_seq INTEGER NOT NULL,
  before_seq INTEGER NOT NULL,
  countable INTEGER NOT NULL,
  user_id TEXT NOT NULL,
  PRIMARY KEY (conversation, user_id, after_seq)
) STRICT, WITHOUT ROWID;

-- The current state of changed entries. See EntryState. `edit_seq` and `recalled_seq` are the conversation_seqs of the
-- last edit and of the recall; 0: none. `reactions` is an encoded EntryState with only the reactions.
CREATE TABLE entry_states (
  conversation INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  changed_seq INTEGER NOT NULL,
  edits INTEGER NOT NULL,
  edited_at_ms INTEGER NOT NULL,
  edit_seq INTEGER NOT NULL,
  recalled_seq INTEGER NOT NULL,
  recalled_by TEXT NOT NULL,
  reactions BLOB NOT NULL,
  PRIMARY KEY (conversation, seq)
) STRICT, WITHOUT ROWID;

-- The reactions of a user to an entry, as an encoded Entry with only `reactions`. A user without reactions has no row.
CREATE TABLE reactions (
  conversation INTEGER NOT NULL,
  target_seq INTEGER NOT NULL,
  user_id TEXT NOT NULL,
  reactions BLOB NOT NULL,
  PRIMARY KEY (conversation, target_seq, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
  app TEXT NOT NULL,
  user_id TEXT NOT NULL,
  password_hash TEXT NOT NULL,
  PRIMARY KEY (app, user_id)
) STRICT, WITHOUT ROWID;

-- `profile` is an encoded Profile without `user`.
CREATE TABLE profiles (
  app TEXT NOT NULL,
  user_id TEXT NOT NULL,
  profile BLOB NOT NULL,
  PRIMARY KEY (app, user_id)
) STRICT, WITHOUT ROWID;

-- A user's own settings of a conversation. `id` is the conversation id.
CREATE TABLE settings (
  app TEXT NOT NULL,
  user_id TEXT NOT NULL,
  id TEXT NOT NULL,
  muted_until_ms INTEGER NOT NULL,
  pinned INTEGER NOT NULL,
  archived INTEGER NOT NULL,
  marked_unread INTEGER NOT NULL,
  draft TEXT NOT NULL,
  PRIMARY KEY (app, user_id, id)
) STRICT, WITHOUT ROWID;

-- `user_id` has blocked `blocked`.
CREATE TABLE blocks (
  app TEXT NOT NULL,
  user_id TEXT NOT NULL,
  blocked TEXT NOT NULL,
  PRIMARY KEY (app, user_id, blocked)
) STRICT, WITHOUT ROWID;

-- Ending a session deletes its row. `refresh_number` counts the exchanges of refresh tokens, from 1. The key begins with the user:
-- all data of a user can be in one database.
CREATE TABLE sessions (
  app TEXT NOT NULL,
  user_id TEXT NOT NULL,
  id TEXT NOT NULL,
  device TEXT NOT NULL,
  refresh_hash BLOB NOT NULL,
  previous_hash BLOB NOT NULL,
  refresh_number INTEGER NOT NULL,
  PRIMARY KEY (app, user_id, id),
  UNIQUE (app, user_id, device)
) STRICT, WITHOUT ROWID;

-- The newest key has the highest slot.
CREATE TABLE signing_keys (
  slot INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  secret BLOB NOT NULL
) STRICT;

-- A commit increments this if it must be synced and would otherwise write nothing.
CREATE TABLE synced (times INTEGER NOT NULL) STRICT;
INSERT INTO synced VALUES (0);
