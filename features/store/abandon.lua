#!lua
-- What is being built is given up: whoever filled it is refused from here on, if only he sleeps and wakes again.
-- KEYS[1]  {0}:<app>:meta
-- Beside it, in its slot: {0}:<app>:rebuild, the lease
-- ARGV     generation that is being built
-- Returns  '' | why not; '' also for the repeat of a call whose reply was lost
local holder = redis.call('GET', string.sub(KEYS[1], 1, -5) .. 'rebuild')
if holder then return 'a rebuild is at work: ' .. holder end
if redis.call('HGET', KEYS[1], 'building') == ARGV[1] then redis.call('HDEL', KEYS[1], 'building') end
return ''
