-- Compare-and-set on leases: absence means that a writer, the relay or an eviction came first.
-- KEYS entities. ARGV for each: the lease as stored, the value or '' to give the lease back, ms to live. Returns 1 for
-- each that is done, else 0.
local done = {}
for i, key in ipairs(KEYS) do
  local lease, value, life = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  done[i] = 1
  if redis.pcall('GET', key) ~= lease then -- an error is not, either
    done[i] = 0
  elseif value == '' then
    redis.call('DEL', key)
  else
    redis.call('SET', key, value, 'PX', life)
  end
end
return done
