-- Keeps members unless a newer version is there. KEYS: members, without the run. ARGV: version, members, life in ms, run of
-- this server.
local key = KEYS[1] .. ':' .. ARGV[#ARGV]
local known = redis.call('HGET', key, 'v')
if not known or tonumber(known) <= tonumber(ARGV[1]) then
  redis.call('HSET', key, 'v', ARGV[1], 'm', ARGV[2])
  redis.call('PEXPIRE', key, ARGV[3])
end
