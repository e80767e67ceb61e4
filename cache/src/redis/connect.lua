-- Leases a route and reads the counter. KEYS: routes and counter of a user. ARGV: connection, gateway, life in ms,
-- epoch of a new counter, life of the counter in ms, run of this server. Gives {epoch, seq}.
local run = ARGV[#ARGV]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local routes = redis.call('HGETALL', KEYS[1])
for i = 1, #routes, 2 do
  if tonumber(string.match(routes[i + 1], '^%d+')) <= now then
    redis.call('HDEL', KEYS[1], routes[i])
  end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now + ARGV[3], ARGV[2]))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
local counter = redis.call('HMGET', KEYS[2], 'e', 'r', 'n')
if not counter[1] or counter[2] ~= run then
  counter = {ARGV[4], run, 0}
  redis.call('HSET', KEYS[2], 'e', ARGV[4], 'r', run, 'n', 0)
end
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return {tonumber(counter[1]), tonumber(counter[3])}
