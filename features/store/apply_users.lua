#!lua
-- The user phase of one shard and micro-batch: all or nothing under the shard's mark.
-- KEYS[1]  {tag}:<app>:<generation>:hwm; the shard's other keys share its prefix and so its slot
-- ARGV     field, prev, last, ttl s, epoch, number of counters, number of tombstones, (counter, count)...,
--          (tombstone's name, tombstone)..., (user hash in hex, version read, log)...
-- Returns  {1, last} | {0, mark} (another mark: nothing written) | {0, mark, losers} (versions moved: nothing written)
--          | {0, mark, {}, epoch} (tombstones changed since: nothing written) | error TORN (see redis_scripts.py)
-- The header without flags makes a full Redis refuse the script before it starts, never half-way.
local prefix = string.sub(KEYS[1], 1, -4)
local held = redis.call('HMGET', KEYS[1], ARGV[1], 'epoch:u', 'begun', 'ended')
if held[3] ~= held[4] then return redis.error_reply('TORN ' .. KEYS[1]) end
local mark, epoch = held[1] or '-2', held[2] or '0'
if mark ~= ARGV[2] then return {0, tonumber(mark)} end
if epoch ~= ARGV[5] then return {0, tonumber(mark), {}, tonumber(epoch)} end
redis.call('EXISTS', prefix .. '-') -- nobody's: fails in a cluster while the slot is moved, see redis_cluster.py

local tombstones = 8 + 2 * tonumber(ARGV[6])
local first = tombstones + 2 * tonumber(ARGV[7])
local losers = {}
for at = first, #ARGV, 3 do
  if redis.call('GETRANGE', prefix .. 'u:' .. ARGV[at], 0, 3) ~= ARGV[at + 1] then
    losers[#losers + 1] = ARGV[at]
  end
end
if #losers > 0 then return {0, tonumber(mark), losers} end

redis.call('HINCRBY', KEYS[1], 'begun', 1)
for at = first, #ARGV, 3 do
  local key = prefix .. 'u:' .. ARGV[at]
  if ARGV[at + 2] == '' then
    redis.call('DEL', key)
  else
    redis.call('SET', key, ARGV[at + 2], 'EX', ARGV[4])
  end
end
for at = 8, tombstones - 1, 2 do
  redis.call('HINCRBY', prefix .. 'counts', ARGV[at], ARGV[at + 1])
end
for at = tombstones, first - 1, 2 do
  redis.call('SET', prefix .. 'f:' .. ARGV[at], ARGV[at + 1], 'EX', ARGV[4])
end
if first > tombstones then redis.call('HINCRBY', KEYS[1], 'epoch:u', 1) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], 'ended', (held[4] or 0) + 1)
return {1, tonumber(ARGV[3])}
