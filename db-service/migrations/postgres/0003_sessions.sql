-- A session is found by its user, so that all data of a user can be in one database. Refresh tokens of the former table name no
-- user, so its sessions can't be continued: their devices log in again.
DROP TABLE sessions;

-- Ending a session deletes its row. `refresh_number` counts the exchanges of refresh tokens, from 1.
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
