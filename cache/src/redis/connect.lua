-- Registers a route with a lease and reads the counter. KEYS: routes of a user, counter without the run. ARGV: connection,
-- gateway, TTL in ms, a new epoch times 2^32, TTL of the counter in ms, id of the server's run. Returns the counter.
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
local counter = KEYS[2] .. ':' .. ARGV[#ARGV]
local value = redis.call('GET', counter)
-- Only compare: numbers in a script have 53 bits.
if not value or tonumber(value) < 4294967296 then
  redis.call('INCRBY', counter, ARGV[4])
  value = redis.call('GET', counter)
end
redis.call('PEXPIRE', counter, ARGV[5])
return value
