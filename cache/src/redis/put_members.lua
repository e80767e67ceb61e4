-- Keeps members unless a newer version is there. KEYS: members. ARGV: version, members, life in ms.
local known = redis.call('HGET', KEYS[1], 'v')
if not known or tonumber(known) <= tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'v', ARGV[1], 'm', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
