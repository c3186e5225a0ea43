-- Compare-and-set on a lease: absence means that a writer, the relay or an eviction came first.
-- KEYS entity. ARGV the lease as stored, the value or '' to give the lease back, ms to live. Returns 1 if done.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '' then
  return redis.call('DEL', KEYS[1])
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
