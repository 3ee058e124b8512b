#!lua
-- Tombstones of another generation, in one shard: each where nothing has changed since it was read.
-- KEYS[1]  {tag}:<app>:<generation>:hwm; the shard's other keys share its prefix and so its slot
-- ARGV     field of a mark that stands as long as the generation, (name, as it was read, as it is to be, ttl s)...
-- Returns  how many were not as read; -1: there is no such generation (any more)
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return -1 end
local prefix = string.sub(KEYS[1], 1, -4)
redis.call('EXISTS', prefix .. '-') -- nobody's: fails in a cluster while the slot is moved, see redis_cluster.py
local put, moved = 0, 0
for at = 2, #ARGV, 4 do
  local key = prefix .. 'f:' .. ARGV[at]
  if (redis.call('GET', key) or '') == ARGV[at + 1] then
    redis.call('SET', key, ARGV[at + 2], 'EX', math.max(redis.call('TTL', key), tonumber(ARGV[at + 3])))
    put = put + 1
  else
    moved = moved + 1
  end
end
-- whoever has read tombstones before is refused, and reads again: see apply_users.lua
if put > 0 then redis.call('HINCRBY', KEYS[1], 'epoch:u', 1) end
return moved
