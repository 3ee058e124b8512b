#!lua
-- The user phase of one shard and micro-batch: all or nothing under the shard's mark.
-- KEYS[1]  {tag}:<app>:<generation>:hwm; the shard's other keys share its prefix and so its slot
-- ARGV     field, prev, last, ttl s, number of counters, (counter, count)..., (user hash in hex, version read, log)...
-- Returns  {1, last} | {0, mark} (another mark: nothing written) | {0, mark, losers} (versions moved: nothing written)
-- The header without flags makes a full Redis refuse the script before it starts, never half-way.
local prefix = string.sub(KEYS[1], 1, -4)
local mark = redis.call('HGET', KEYS[1], ARGV[1]) or '-2'
if mark ~= ARGV[2] then return {0, tonumber(mark)} end

local counters = tonumber(ARGV[5])
local first = 6 + 2 * counters
local losers = {}
for at = first, #ARGV, 3 do
  if redis.call('GETRANGE', prefix .. 'u:' .. ARGV[at], 0, 3) ~= ARGV[at + 1] then
    losers[#losers + 1] = ARGV[at]
  end
end
if #losers > 0 then return {0, tonumber(mark), losers} end

for at = first, #ARGV, 3 do
  local key = prefix .. 'u:' .. ARGV[at]
  if ARGV[at + 2] == '' then
    redis.call('DEL', key)
  else
    redis.call('SET', key, ARGV[at + 2], 'EX', ARGV[4])
  end
end
for at = 6, first - 1, 2 do
  redis.call('HINCRBY', prefix .. 'counts', ARGV[at], ARGV[at + 1])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return {1, tonumber(ARGV[3])}
