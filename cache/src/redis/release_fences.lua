-- Releases the fences of a removal. KEYS: fences of the group, without the user. ARGV: removal, TTL in ms, number of users; users; id
-- of the server's run. A user whose last fence this was keeps a fence without a removal for the TTL.
local call = redis.call
for i = 4, 3 + ARGV[3] do
  local key = KEYS[1] .. ':' .. ARGV[i]
  if call('SREM', key, ARGV[1]) == 1 and call('EXISTS', key) == 0 then
    call('SADD', key, '')
    call('PEXPIRE', key, ARGV[2])
  end
end
