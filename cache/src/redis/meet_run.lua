-- Meets a run of the server, and returns its age in ms. KEYS: marker of the last run that any process has met. ARGV: id of the run,
-- uptime of the server's process in s, TTL of the marker in s.
-- If another run was the last one, this run begins now: a promoted replica has been up for longer than it has been the primary.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'run', 'began')
local began = now
if not known[1] then
  began = now - ARGV[2] * 1000
elseif known[1] == ARGV[1] then
  began = tonumber(known[2])
end
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'began', string.format('%d', began))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return math.max(now - began, 0)
