-- Data are keyed by conversation (conversations, entries, members, absences, entry_states, reactions) or by user (users, sessions,
-- settings, blocks, profiles). No statement names tables of both kinds. `key` never leaves this database.

-- A program works with this version if it supports version `oldest` or a newer one.
CREATE TABLE schema_version (version bigint NOT NULL, oldest bigint NOT NULL);

-- One row. `now` is the generation of the data, which changes when they are restored from a backup or moved. `before` is the
-- previous generation.
CREATE TABLE generation (now bigint NOT NULL, before bigint NOT NULL);
INSERT INTO generation VALUES (0, 0);

-- The position in each partition of the log, raised by the transaction that saves a part of it: the records from `first_offset` up to
-- `next_offset`, exclusive, are decided. An entry of them that is not stored was rejected. Each database
-- has positions of its own, for the conversations that it holds.
CREATE TABLE log_positions (
  topic text COLLATE "C" NOT NULL,
  partition integer NOT NULL,
  first_offset bigint NOT NULL,
  next_offset bigint NOT NULL,
  PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- `head` and `countable` are the conversation_seq and the countable_seq of the last entry. `shown` is the conversation_seq of the
-- last entry that does not change another entry, and `last_sent_at_ms` is when that entry was sent. `kept` is the last
-- conversation_seq from before this generation. A group whose head is 0 does not exist yet; only the transaction that creates it
-- sees such a row.
CREATE TABLE conversations (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  app text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  head bigint NOT NULL,
  countable bigint NOT NULL,
  shown bigint NOT NULL,
  last_sent_at_ms bigint NOT NULL,
  kept bigint NOT NULL DEFAULT 0,
  members_version bigint NOT NULL,
  name text NOT NULL,
  history integer NOT NULL,
  UNIQUE (app, id)
);

-- `payload` is the encoded Entry without `conversation` and `message_id`. It is never updated. `countable` is the countable_seq,
-- and `counts` says whether the entry itself is countable. `kind` is NULL for a message. `target_seq` is the conversation_seq of
-- the entry that this one refers to, NULL if there is none.
CREATE TABLE entries (
  conversation bigint NOT NULL,
  seq bigint NOT NULL,
  countable bigint NOT NULL,
  sent_at_ms bigint NOT NULL,
  target_seq bigint,
  counts boolean NOT NULL,
  message_id bytea NOT NULL,
  sender text COLLATE "C" NOT NULL,
  kind text COLLATE "C",
  payload bytea NOT NULL,
  PRIMARY KEY (conversation, seq),
  UNIQUE (conversation, message_id)
);
CREATE INDEX entries_of_target ON entries (conversation, target_seq) WHERE target_seq IS NOT NULL;

-- A member who leaves keeps the row, with role 0. `visible_until` and `left_countable` are then the last conversation_seq that the
-- user can see and the countable_seq of that entry; NULL for a member. `excluded` is the number of countable entries after
-- `read_seq` that do not count as unread: the user's own, recalled ones, and those of absences.
CREATE TABLE members (
  conversation bigint NOT NULL,
  visible_from bigint NOT NULL,
  visible_until bigint,
  left_countable bigint,
  read_seq bigint NOT NULL,
  read_countable bigint NOT NULL,
  excluded bigint NOT NULL,
  joined bigint NOT NULL,
  role integer NOT NULL,
  app text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  PRIMARY KEY (conversation, user_id)
) WITH (fillfactor = 80);
CREATE INDEX members_of_user ON members (app, user_id);

-- Entries between `after_seq` and `before_seq`, both exclusive, that a user can't see, because the user was not a member then and
-- later members of the group see no earlier entries. `countable` of them are countable.
CREATE TABLE absences (
  conversation bigint NOT NULL,
  after_seq bigint NOT NULL,
  before_seq bigint NOT NULL,
  countable bigint NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  PRIMARY KEY (conversation, user_id, after_seq)
);

-- The current state of changed entries. See EntryState. `edit_seq` and `recalled_seq` are the conversation_seqs of the
-- last edit and of the recall; 0: none. `reactions` is an encoded EntryState with only the reactions.
CREATE TABLE entry_states (
  conversation bigint NOT NULL,
  seq bigint NOT NULL,
  changed_seq bigint NOT NULL,
  edits bigint NOT NULL,
  edited_at_ms bigint NOT NULL,
  edit_seq bigint NOT NULL,
  recalled_seq bigint NOT NULL,
  recalled_by text COLLATE "C" NOT NULL,
  reactions bytea NOT NULL,
  PRIMARY KEY (conversation, seq)
);

-- The reactions of a user to an entry, as an encoded Entry with only `reactions`. A user without reactions has no row.
CREATE TABLE reactions (
  conversation bigint NOT NULL,
  target_seq bigint NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  reactions bytea NOT NULL,
  PRIMARY KEY (conversation, target_seq, user_id)
);

CREATE TABLE users (
  app text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  password_hash text NOT NULL,
  PRIMARY KEY (app, user_id)
);

-- `profile` is an encoded Profile without `user`.
CREATE TABLE profiles (
  app text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  profile bytea NOT NULL,
  PRIMARY KEY (app, user_id)
);

-- A user's own settings of a conversation. `id` is the conversation id.
CREATE TABLE settings (
  app text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  muted_until_ms bigint NOT NULL,
  pinned boolean NOT NULL,
  archived boolean NOT NULL,
  marked_unread boolean NOT NULL,
  draft text NOT NULL,
  PRIMARY KEY (app, user_id, id)
);

-- `user_id` has blocked `blocked`.
CREATE TABLE blocks (
  app text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  blocked text COLLATE "C" NOT NULL,
  PRIMARY KEY (app, user_id, blocked)
);

-- Ending a session deletes its row. `refresh_number` counts the exchanges of refresh tokens, from 1. The key begins with the user:
-- all data of a user can be in one database.
CREATE TABLE sessions (
  app text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  device text COLLATE "C" NOT NULL,
  refresh_hash bytea NOT NULL,
  previous_hash bytea NOT NULL,
  refresh_number bigint NOT NULL,
  PRIMARY KEY (app, user_id, id),
  UNIQUE (app, user_id, device)
);

-- The newest key has the highest slot.
CREATE TABLE signing_keys (
  slot integer PRIMARY KEY,
  id text NOT NULL UNIQUE,
  secret bytea NOT NULL
);
