#!lua
-- Takes or keeps the lease of a rebuild, and says which generation it fills.
-- KEYS[1]  {0}:<app>:meta
-- Beside it, in its slot: {0}:<app>:rebuild, the lease: "<owner> <what it tells>"
-- ARGV     owner, what it tells, ttl ms, generation that serves, generation that was being built ('' for none), generation to build
-- Returns  '' | why not
local lease = string.sub(KEYS[1], 1, -5) .. 'rebuild'
local holder = redis.call('GET', lease)
if holder and string.sub(holder, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 'a rebuild is at work: ' .. holder end
local serving = redis.call('HGET', KEYS[1], 'generation') or '1'
if serving ~= ARGV[4] then return 'generation ' .. serving .. ' of the state serves, no longer ' .. ARGV[4] end
local building = redis.call('HGET', KEYS[1], 'building')
if building and building ~= ARGV[5] and building ~= ARGV[6] then
  return 'generation ' .. building .. ' of the state is being built, no longer ' .. ARGV[6]
end
-- numbers are never used again: one up to the newest that is not being built was given up, or serves, or served
local newest = tonumber(redis.call('HGET', KEYS[1], 'newest') or '1')
if building ~= ARGV[6] and newest >= tonumber(ARGV[6]) then
  return 'generation ' .. ARGV[6] .. ' of the state was given up meanwhile'
end
redis.call('SET', lease, ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
redis.call('HSET', KEYS[1], 'building', ARGV[6], 'newest', ARGV[6])
return ''
