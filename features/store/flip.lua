#!lua
-- The generation that a rebuild has filled serves from here on.
-- KEYS[1]  {0}:<app>:meta
-- Beside it, in its slot: {0}:<app>:rebuild, the lease
-- ARGV     owner, generation that serves, generation that was built
-- Returns  '' | why not; '' also for the repeat of a call whose reply was lost
local lease = string.sub(KEYS[1], 1, -5) .. 'rebuild'
local serving = redis.call('HGET', KEYS[1], 'generation') or '1'
if serving == ARGV[3] then return '' end
local holder = redis.call('GET', lease) or ''
if string.sub(holder, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 'the lease is lost: ' .. holder end
local building = redis.call('HGET', KEYS[1], 'building')
if serving ~= ARGV[2] or building ~= ARGV[3] then
  return 'generation ' .. serving .. ' of the state serves, ' .. (building or 'none') .. ' is being built'
end
redis.call('HSET', KEYS[1], 'generation', ARGV[3])
redis.call('HDEL', KEYS[1], 'building')
redis.call('DEL', lease)
return ''
