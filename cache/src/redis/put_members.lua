-- Caches members unless a newer version is cached. KEYS: members, without the run. ARGV: TTL in ms, version, members, number of
-- members; user and field of each; id of the server's run.
local call, key = redis.call, KEYS[1] .. ':' .. ARGV[#ARGV]
local known = call('HGET', key, 'version')
if not known or tonumber(known) <= tonumber(ARGV[2]) then
  call('DEL', key)
  call('HSET', key, 'version', ARGV[2], 'members', ARGV[3])
  for i = 5, 4 + 2 * ARGV[4], 2 do
    call('HSET', key, 'u:' .. ARGV[i], ARGV[i + 1])
  end
  call('PEXPIRE', key, ARGV[1])
end
