#!lua
-- The item phase of one shard and micro-batch, under the shard's mark. What each op does, to the bit, is written in
-- Python beside its maths: features/rings.py, neighbours.py, top_score.py, item_record.py; tests/contracts/ compares.
-- KEYS[1]  {tag}:<app>:<generation>:hwm; the shard's other keys share its prefix and so its slot
-- ARGV     field, prev, last, ttl s, columns, top weights (a double each), ops: (kind c1, key c16, u32 length, body)...,
--          epoch
-- Returns  {1, last} | {0, mark} (another mark: nothing written) | {0, mark, {}, epoch} (users were forgotten since:
--          nothing written) | error TORN (see redis_scripts.py)
-- The header without flags makes a full Redis refuse the script before it starts, never half-way. Bytes are never
-- compared with < or >: Lua compares by the server's locale.
local prefix = string.sub(KEYS[1], 1, -4)
local held = redis.call('HMGET', KEYS[1], ARGV[1], 'epoch:i', 'begun', 'ended')
if held[3] ~= held[4] then return redis.error_reply('TORN ' .. KEYS[1]) end
local mark, epoch = held[1] or '-2', held[2] or '0'
if mark ~= ARGV[2] then return {0, tonumber(mark)} end
if epoch ~= ARGV[8] then return {0, tonumber(mark), {}, tonumber(epoch)} end
redis.call('EXISTS', prefix .. '-') -- nobody's: fails in a cluster while the slot is moved, see redis_cluster.py
redis.call('HINCRBY', KEYS[1], 'begun', 1)

local call, pack, unpack_at = redis.call, struct.pack, struct.unpack
local sub, byte, find, floor = string.sub, string.byte, string.find, math.floor
local TTL, C, ops = ARGV[4], tonumber(ARGV[5]), ARGV[7]
local weights = {unpack_at('>' .. string.rep('d', C), ARGV[6])}

-- a bounded list is written once, after all items
local scored, order = {}, {}
local function rank(key, most, member, score)
  local list = scored[key]
  if not list then
    list = {most = most, rises = key ~= 'new'}
    scored[key] = list
    order[#order + 1] = key
  end
  list[#list + 1] = score
  list[#list + 1] = member
end

-- rings: read whole, changed as a string, written whole; measured cheaper than a BITFIELD of 8 increments
local SLOTS, FIRST = {6, 13, 25, 8}, {0, 6, 19, 44}
local LIFETIME, COUNTS = 28 + 48 * C, 28 + 52 * C
local SIZE = COUNTS + 208 * C
local ZEROS = string.rep('\0', SIZE)
local HEADS, DAYS = '>I4I4I4I4I4I4I4', '>' .. string.rep('I8', 2 * C)
local EPOCH_DAY, FULL, WORD = 10957, 4294967295, 4294967296

-- minute -> 4 buckets, 3 decay buckets, then where column 0 stands in the 4 count slots and the 3 decay slots
local moments = {}
local function moment_of(minute)
  local moment = moments[minute]
  if moment then return moment end
  local b2, b3, b4 = floor(minute / 5), floor(minute / 60), floor(minute / 1440)
  local d1, d2, d3 = floor(minute / 11520), floor(minute / 80640), floor(minute / 345600)
  moment = {
    minute, b2, b3, b4, d1, d2, d3,
    COUNTS + 4 * C * (minute % 6), COUNTS + 4 * C * (6 + b2 % 13),
    COUNTS + 4 * C * (19 + b3 % 25), COUNTS + 4 * C * (44 + b4 % 8),
    28 + 8 * C * (d1 % 2), 28 + 8 * C * (2 + d2 % 2), 28 + 8 * C * (4 + d3 % 2),
  }
  moments[minute] = moment
  return moment
end

local function cleared(ring, at, size)
  return sub(ring, 1, at) .. sub(ZEROS, 1, size) .. sub(ring, at + size + 1)
end

local function advance(ring, head, newest)
  local size, from, to = 4 * C, nil, 0 -- slots from..to-1 to clear: rings that are wholly stale lie side by side
  for index = 1, 4 do
    local bucket, old, slots, first = newest[index], head[index], SLOTS[index], FIRST[index]
    if bucket > old then
      head[index] = bucket
      local start, stop = (old + 1) % slots, bucket % slots
      if bucket - old >= slots then
        start, stop = 0, slots - 1
      elseif start > stop then
        ring = cleared(ring, COUNTS + size * (first + start), size * (slots - start))
        start = 0
      end
      if from and to ~= first + start then
        ring = cleared(ring, COUNTS + size * from, size * (to - from))
        from = nil
      end
      from, to = from or first + start, first + stop + 1
    end
  end
  if from then ring = cleared(ring, COUNTS + size * from, size * (to - from)) end
  for index = 1, 3 do
    local bucket, old = newest[4 + index], head[4 + index]
    if bucket > old then
      head[4 + index] = bucket
      if bucket - old >= 2 then
        ring = cleared(ring, 28 + 16 * C * (index - 1), 16 * C)
      else
        ring = cleared(ring, newest[11 + index], 8 * C)
      end
    end
  end
  return ring
end

-- what to add, by place; places in ascending order
local function gains_of(head, deltas, at)
  local gains, places, ranked, n = {}, {}, false, 0
  local function gain(place, value)
    local known = gains[place]
    if known then
      gains[place] = known + value
    else
      n = n + 1
      gains[place], places[n] = value, place
    end
  end
  for _ = 1, deltas do
    local minute, column, events, first, second, third
    minute, column, events, first, second, third, at = unpack_at('>I4BI4I4I4I4', ops, at)
    local moment = moment_of(minute)
    if moment[5] > head[5] - 2 then gain(moment[12] + 8 * column, first * events) end
    if moment[6] > head[6] - 2 then gain(moment[13] + 8 * column, second * events) end
    if moment[7] > head[7] - 2 then gain(moment[14] + 8 * column, third * events) end
    gain(LIFETIME + 4 * column, events)
    for index = 1, 4 do
      if moment[index] > head[index] - SLOTS[index] then gain(moment[7 + index] + 4 * column, events) end
    end
    ranked = ranked or weights[column + 1] > 0
  end
  if deltas > 1 then table.sort(places) end
  return gains, places, ranked
end

local function added(ring, head, gains, places)
  local parts, n, done = {pack(HEADS, unpack(head, 1, 7))}, 1, 28
  for index = 1, #places do
    local place = places[index]
    if place > done then
      n = n + 1
      parts[n] = sub(ring, done + 1, place)
    end
    n = n + 1
    if place < LIFETIME then -- 64 bits in two halves: exact beyond 2^53
      local high, low = unpack_at('>I4I4', ring, place + 1)
      local value = gains[place]
      low = low + value % WORD
      high = high + floor(value / WORD) + floor(low / WORD)
      parts[n], done = pack('>I4I4', high, low % WORD), place + 8
    else
      local count = unpack_at('>I4', ring, place + 1) + gains[place]
      if count > FULL then count = FULL end
      parts[n], done = pack('>I4', count), place + 4
    end
  end
  parts[n + 1] = sub(ring, done + 1)
  return table.concat(parts)
end

local function add(key, at, stop, ttl)
  local deltas
  deltas, at = unpack_at('>I2', ops, at)
  local lists = at + 21 * deltas
  local ring = call('GETRANGE', key, 0, SIZE - 1)
  local fresh = ring == ''
  if fresh then ring = ZEROS end
  local head = {unpack_at(HEADS, ring)}
  local day = head[4]
  local newest = 0
  for index = 0, deltas - 1 do
    local minute = unpack_at('>I4', ops, at + 21 * index)
    if minute > newest then newest = minute end
  end
  if fresh then
    head = {unpack(moment_of(newest), 1, 7)}
  else
    ring = advance(ring, head, moment_of(newest))
  end
  local gains, places, ranked = gains_of(head, deltas, at)
  ring = added(ring, head, gains, places)
  if not fresh then
    call('SETRANGE', key, 0, ring)
    if ttl and head[4] > day then call('EXPIRE', key, ttl) end
  else
    local name = sub(ops, lists + 1 + 16 * byte(ops, lists), stop)
    local whole = ring .. pack('>I2', #name) .. name
    if ttl then call('SET', key, whole, 'EX', ttl) else call('SET', key, whole) end
  end
  return ring, lists, ranked
end

local function top_score(ring)
  local bucket = unpack_at('>I4', ring, 17)
  local days = {unpack_at(DAYS, ring, 29)}
  local newest, other = C * (bucket % 2), C * ((bucket + 1) % 2)
  local total = 0
  for column = 1, C do
    local weight = weights[column]
    if weight > 0 then total = total + weight * (days[newest + column] + days[other + column] / 256) end
  end
  if total <= 0 then return nil end
  local mantissa, exponent = math.frexp(total)
  return exponent + 2 * mantissa - 2 - 20 + (bucket * 8 - EPOCH_DAY)
end

local function add_item(key, name, at, stop)
  local ring, lists, ranked = add(key, at, stop, TTL)
  local score = ranked and top_score(ring) -- impressions alone move no item
  if score then
    rank('top', 512, name, score)
    for index = 0, byte(ops, lists) - 1 do
      rank('a:' .. sub(ops, lists + 1 + 16 * index, lists + 16 + 16 * index), 32, name, score)
    end
  end
end

-- session lists
local function after(list, at, ts, high, low, session)
  local ts2, high2, low2, session2 = unpack_at('>I6I4I4I2', list, at)
  if ts2 ~= ts then return ts2 > ts end
  if high2 ~= high then return high2 > high end
  if low2 ~= low then return low2 > low end
  return session2 > session
end

local function touch(key, at, stop)
  local old = call('GET', key) or ''
  local list = old
  while at <= stop do
    local entry = sub(ops, at, at + 15)
    local ts, high, low, session = unpack_at('>I6I4I4I2', entry)
    at = at + 16
    local who = sub(entry, 7)
    local hit = find(list, who, 1, true)
    while hit and (hit - 7) % 16 ~= 0 do hit = find(list, who, hit + 1, true) end
    if not (hit and unpack_at('>I6', list, hit - 6) >= ts) then
      if hit then list = sub(list, 1, hit - 7) .. sub(list, hit + 10) end
      local place = #list
      while place > 0 and after(list, place - 15, ts, high, low, session) do place = place - 16 end
      list = sub(list, 1, place) .. entry .. sub(list, place + 1)
      if #list > 1024 then list = sub(list, 17) end
    end
  end
  if list == old then return end
  local kept = #old
  if #list == kept then kept = kept - 16 end
  if kept < 0 or sub(list, 1, kept) ~= sub(old, 1, kept) then
    call('SET', key, list, 'EX', TTL)
  elseif old == '' then
    call('SET', key, list, 'EX', TTL)
  else
    call('SETRANGE', key, kept, sub(list, kept + 1))
    local before, now = unpack_at('>I6', old, #old - 15), unpack_at('>I6', list, #list - 15)
    if floor(now / 86400000) > floor(before / 86400000) then call('EXPIRE', key, TTL) end
  end
end

-- co-visited lists
local function best_half(list)
  local entries = {}
  for at = 9, #list, 16 do
    local high, low, weight = unpack_at('>I4I4d', list, at)
    entries[#entries + 1] = {weight, high, low, sub(list, at, at + 15)}
  end
  table.sort(entries, function(a, b)
    if a[1] ~= b[1] then return a[1] > b[1] end
    if a[2] ~= b[2] then return a[2] < b[2] end
    return a[3] < b[3]
  end)
  local kept = {}
  for index = 1, 32 do kept[index] = entries[index][4] end
  return sub(list, 1, 8) .. table.concat(kept)
end

local function follow(key, at, stop)
  local list = call('GET', key)
  local rewritten, patches = not list, {}
  local base, newest_day, old_size
  if list then
    base, newest_day = unpack_at('>I4I4', list)
    old_size = #list
  end
  while at <= stop do
    local item, minute, gain
    item, minute, gain, at = unpack_at('>c8I4d', ops, at)
    local bucket, day = floor(minute / 80640), floor(minute / 1440)
    if not list then
      list, base, newest_day, old_size = pack('>I4I4', bucket, day), bucket, day, 8
    end
    if bucket > base then
      local factor = math.ldexp(1, -8 * (bucket - base))
      local parts = {pack('>I4I4', bucket, newest_day)}
      for entry = 9, #list, 16 do
        parts[#parts + 1] = sub(list, entry, entry + 7)
        parts[#parts + 1] = pack('>d', unpack_at('>d', list, entry + 8) * factor)
      end
      list, base, rewritten = table.concat(parts), bucket, true
    end
    gain = gain * math.ldexp(1, -8 * (base - bucket))
    if day > newest_day then
      newest_day, rewritten = day, true
      list = pack('>I4I4', base, day) .. sub(list, 9)
    end
    local hit = find(list, item, 9, true)
    while hit and (hit - 9) % 16 ~= 0 do hit = find(list, item, hit + 1, true) end
    if hit then
      list = sub(list, 1, hit + 7) .. pack('>d', unpack_at('>d', list, hit + 8) + gain) .. sub(list, hit + 16)
      if hit <= old_size then patches[#patches + 1] = hit end
    else
      if #list >= 1032 then list, rewritten = best_half(list), true end
      list = list .. item .. pack('>d', gain)
    end
  end
  if rewritten or #patches > 4 then
    call('SET', key, list, 'EX', TTL)
    return
  end
  for _, hit in ipairs(patches) do
    call('SETRANGE', key, hit + 7, sub(list, hit + 8, hit + 15))
  end
  if #list > old_size then call('APPEND', key, sub(list, old_size + 1)) end
end

-- item records
local function greater(a, b)
  for index = 1, math.min(#a, #b) do
    local x, y = byte(a, index), byte(b, index)
    if x ~= y then return x > y end
  end
  return #a > #b
end

local function attributes(record)
  return sub(record, 17, 17) .. sub(record, 20 + unpack_at('>I2', record, 18))
end

local function put_record(key, name, at, stop)
  local old, new = call('GET', key), sub(ops, at, stop)
  local winner = new
  if old then
    local old_ts, old_first = unpack_at('>I8I8', old)
    local new_ts, new_first = unpack_at('>I8I8', new)
    if old_ts > new_ts or (old_ts == new_ts and not greater(attributes(new), attributes(old))) then winner = old end
    local first = math.min(old_first, new_first)
    if first == 0 then first = math.max(old_first, new_first) end
    winner = sub(winner, 1, 8) .. pack('>I8', first) .. sub(winner, 17)
  end
  if winner ~= old then call('SET', key, winner) end
  rank('sample', 64, name, tonumber(sub(name, 1, 12), 16))
  local first, flags = unpack_at('>I8B', winner, 9)
  if flags % 4 >= 2 then
    rank('new', 256, name, false)
  elseif first > 0 then
    rank('new', 256, name, first)
  end
end

-- whose session entries have to go
local someone = false
local function to_sweep(name, at, stop)
  local body, known = sub(ops, at, stop), call('HGET', prefix .. 'sweep', name)
  if known and unpack_at('>I6', known) > unpack_at('>I6', body) then body = sub(known, 1, 6) .. sub(body, 7) end
  call('HSET', prefix .. 'sweep', name, body)
  someone = true
end

local at = 1
while at <= #ops do
  local kind, name, size
  kind, name, size, at = unpack_at('>c1c16I4', ops, at)
  local stop = at + size - 1
  local key = prefix .. kind .. ':' .. name
  if kind == 'i' then
    add_item(key, name, at, stop)
  elseif kind == 's' then
    touch(key, at, stop)
  elseif kind == 'v' then
    follow(key, at, stop)
  elseif kind == 'r' then
    put_record(key, name, at, stop)
  elseif kind == 'c' then
    add(key, at, stop, TTL)
  elseif kind == 'f' then
    to_sweep(name, at, stop)
  else
    add(prefix .. 'g', at, stop, false)
  end
  at = stop + 1
end

for _, key in ipairs(order) do
  local list, full = scored[key], prefix .. key
  local args, gone, least = {}, {}, nil
  if list.rises and call('ZCARD', full) >= list.most then -- what would be trimmed at once is not added
    least = tonumber(call('ZRANGE', full, 0, 0, 'WITHSCORES')[2])
  end
  for index = 1, #list, 2 do
    if list[index] and (not least or list[index] >= least) then
      args[#args + 1], args[#args + 2] = list[index], list[index + 1]
    elseif not list[index] then
      gone[#gone + 1] = list[index + 1]
    end
  end
  for from = 1, #args, 2000 do
    call('ZADD', full, unpack(args, from, math.min(from + 1999, #args)))
  end
  for from = 1, #gone, 2000 do
    call('ZREM', full, unpack(gone, from, math.min(from + 1999, #gone)))
  end
  if #args > 0 then call('ZREMRANGEBYRANK', full, 0, -(list.most + 1)) end
end
if someone then call('HINCRBY', KEYS[1], 'epoch:i', 1) end
call('HSET', KEYS[1], ARGV[1], ARGV[3], 'ended', (held[4] or 0) + 1)
return {1, tonumber(ARGV[3])}
