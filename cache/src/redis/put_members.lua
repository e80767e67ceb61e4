-- Caches members unless a newer version is cached. KEYS: members, without the run. ARGV: version, members, TTL in ms, id of
-- the server's run.
local key = KEYS[1] .. ':' .. ARGV[#ARGV]
local known = redis.call('HGET', key, 'v')
if not known or tonumber(known) <= tonumber(ARGV[1]) then
  redis.call('HSET', key, 'v', ARGV[1], 'm', ARGV[2])
  redis.call('PEXPIRE', key, ARGV[3])
end
