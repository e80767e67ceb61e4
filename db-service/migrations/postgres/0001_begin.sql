-- `head` and `countable` are the conversation_seq and the countable_seq of the last entry. A group whose head is 0 does not exist
-- yet; only the transaction that creates it sees such a row.
CREATE TABLE conversations (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  app text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  head bigint NOT NULL,
  countable bigint NOT NULL,
  members_version bigint NOT NULL,
  name text NOT NULL,
  history integer NOT NULL,
  last_sent_at_ms bigint NOT NULL,
  UNIQUE (app, id)
);

-- `payload` is the encoded Entry without the fields that have columns.
CREATE TABLE entries (
  conversation bigint NOT NULL,
  seq bigint NOT NULL,
  countable bigint NOT NULL,
  message_id bytea NOT NULL,
  payload bytea NOT NULL,
  PRIMARY KEY (conversation, seq),
  UNIQUE (conversation, message_id)
);

-- The primary key lists the conversations of a user in the order of pages.
CREATE TABLE members (
  app text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  conversation bigint NOT NULL,
  role integer NOT NULL,
  visible_from bigint NOT NULL,
  read_seq bigint NOT NULL,
  read_countable bigint NOT NULL,
  joined bigint NOT NULL,
  PRIMARY KEY (app, user_id, id)
);
CREATE INDEX members_of_conversation ON members (conversation, joined);

CREATE TABLE users (
  app text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  password_hash text NOT NULL,
  PRIMARY KEY (app, user_id)
);

-- Ending a session deletes its row.
CREATE TABLE sessions (
  id text COLLATE "C" PRIMARY KEY,
  app text COLLATE "C" NOT NULL,
  user_id text COLLATE "C" NOT NULL,
  device text COLLATE "C" NOT NULL,
  refresh_hash bytea NOT NULL,
  previous_hash bytea NOT NULL,
  rotated_at_ms bigint NOT NULL,
  UNIQUE (app, user_id, device)
);

-- The newest key has the highest slot.
CREATE TABLE signing_keys (
  slot integer PRIMARY KEY,
  id text NOT NULL UNIQUE,
  secret bytea NOT NULL
);
