-- Registers a watcher with a lease. KEYS: watchers of each user, by expiry. ARGV: watcher, lease in ms, most watchers of a user, id
-- of the server's run.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, key in ipairs(KEYS) do
  call('ZREMRANGEBYSCORE', key, '-inf', now)
  if call('ZSCORE', key, ARGV[1]) or call('ZCARD', key) < tonumber(ARGV[3]) then
    call('ZADD', key, now + ARGV[2], ARGV[1])
    if call('PTTL', key) < tonumber(ARGV[2]) then
      call('PEXPIRE', key, ARGV[2])
    end
  end
end
