-- Forgets an instance that has taken no lease since its registration was read.
-- KEYS meta. ARGV instance, sequence number.
if redis.call('HGET', KEYS[1], 'i:' .. ARGV[1]) == ARGV[2] then
  return redis.call('HDEL', KEYS[1], 'i:' .. ARGV[1])
end
return 0
