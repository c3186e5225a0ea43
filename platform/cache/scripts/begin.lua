-- Begins an epoch: every value, lease, position and registration of earlier ones is void.
-- KEYS meta, log. ARGV a nonce. Returns the epoch. Fails on a replica.
--
-- The epoch names the server too, as a call may be repeated on another one when the answer of the first is lost. Repeated on
-- the same one it changes nothing, for by then there may be registrations.
local reign = reign()
local epoch = ARGV[1] .. string.sub(reign, 1, 6)
local m = redis.call('HMGET', KEYS[1], 'reign', 'epoch')
if m[1] == reign and m[2] == epoch then
  return epoch
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'reign', reign, 'epoch', epoch, 'pos', 0, 'marked', now, 'fresh', 0)
return epoch
