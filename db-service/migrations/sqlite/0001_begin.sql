-- `head` and `countable` are the conversation_seq and the countable_seq of the last entry. A group whose head is 0 does not exist
-- yet.
CREATE TABLE conversations (
  key INTEGER PRIMARY KEY,
  app TEXT NOT NULL,
  id TEXT NOT NULL,
  head INTEGER NOT NULL,
  countable INTEGER NOT NULL,
  members_version INTEGER NOT NULL,
  name TEXT NOT NULL,
  history INTEGER NOT NULL,
  last_sent_at_ms INTEGER NOT NULL,
  UNIQUE (app, id)
) STRICT;

-- `payload` is the encoded Entry without the fields that have columns.
CREATE TABLE entries (
  conversation INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  countable INTEGER NOT NULL,
  message_id BLOB NOT NULL,
  payload BLOB NOT NULL,
  PRIMARY KEY (conversation, seq),
  UNIQUE (conversation, message_id)
) STRICT;

-- The primary key lists the conversations of a user in the order of pages.
CREATE TABLE members (
  app TEXT NOT NULL,
  user TEXT NOT NULL,
  id TEXT NOT NULL,
  conversation INTEGER NOT NULL,
  role INTEGER NOT NULL,
  visible_from INTEGER NOT NULL,
  read_seq INTEGER NOT NULL,
  read_countable INTEGER NOT NULL,
  joined INTEGER NOT NULL,
  PRIMARY KEY (app, user, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_of_conversation ON members (conversation, joined);

CREATE TABLE users (
  app TEXT NOT NULL,
  user TEXT NOT NULL,
  password_hash TEXT NOT NULL,
  PRIMARY KEY (app, user)
) STRICT, WITHOUT ROWID;

-- Ending a session deletes its row.
CREATE TABLE sessions (
  id TEXT NOT NULL PRIMARY KEY,
  app TEXT NOT NULL,
  user TEXT NOT NULL,
  device TEXT NOT NULL,
  refresh_hash BLOB NOT NULL,
  previous_hash BLOB NOT NULL,
  rotated_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX sessions_of_device ON sessions (app, user, device);

-- The newest key has the highest slot.
CREATE TABLE signing_keys (
  slot INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  secret BLOB NOT NULL
) STRICT;

-- A commit increments this if it must be synced and would otherwise write nothing.
CREATE TABLE synced (times INTEGER NOT NULL) STRICT;
INSERT INTO synced VALUES (0);
