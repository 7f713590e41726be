-- Charges and refunds a batch of calls on one ledger, one after the other, atomically. Semantics: guard/model/ledger.py.
--
-- ARGV[1]: JSON list of calls, each a flat list of integers, and texts where there is an event:
--   {0, (limit, amount, label_only, hard_limit or -1, ttl_ms or 0, KIND)...}  a charge
--   {1, (spent, total, KIND)...}                                               a refund
--   KIND: the number of digests, of a claim that counts distinct queries; -1 of a plain one; of one that is entered in
--   the journal three values: -2, rows, event.
-- ARGV[2]: all digests of all calls, 16 bytes each, in the order of the calls; those of one claim differ from each other.
-- ARGV[3]: what the caller's terms are known by, if any claim is journalled: others in force let none of those through.
-- KEYS: per claim its counter (a hash of s: spent, t: total), and if it has digests the set of those paid for; then, if
-- any claim is journalled, the ledger's terms.
-- Returns a JSON list of integers: per charge admission (3: the terms have changed), binding or -1, and per claim spent,
-- total, what was added to each of the two, n, and the places of the n new digests among the claim's own, from 0. A
-- refund returns nothing.
--
-- A journalled counter also has n: entries ever made, jI: entry I, as `rows amount event`, and for each event the totals
-- of entries folded, r|EVENT: rows, a|EVENT: amount. They live and expire with the counter, and s = all a| + all jI.
--
-- Integers stay below 2^53, where a Lua number is exact; `%.0f` writes them so, which tostring would not.

local DIGEST, CHUNK, MOST, FOLDED, JOURNALLED = 16, 1000, 9007199254740991, 8, -2
local ALLOW, DENY, CHANGED = 0, 2, 3
local keys_read, digests_read, out = 0, 0, {}
local in_force = ARGV[3] == '' or (redis.call('HGET', KEYS[#KEYS], 'by') or '-') == ARGV[3]

local function text(number) return string.format('%.0f', number) end

local function put(number) out[#out + 1] = text(number) end

local function next_key()
  keys_read = keys_read + 1
  return KEYS[keys_read]
end

local function next_digests(count)
  local digests = {}
  for i = 1, count do
    local at = (digests_read + i - 1) * DIGEST
    digests[i] = string.sub(ARGV[2], at + 1, at + DIGEST)
  end
  digests_read = digests_read + count
  return digests
end

-- Calls a set command on many members, a bounded number at once; `each` gets the reply and the place before the first member.
local function in_chunks(command, key, members, each)
  for start = 1, #members, CHUNK do
    local reply = redis.call(command, key, unpack(members, start, math.min(start + CHUNK - 1, #members)))
    each(reply, start - 1)
  end
end

local function write(key, spent, total)
  redis.call('HSET', key, 's', text(spent), 't', text(math.min(total, MOST)))
end

local function expire(key, ttl_ms)
  if ttl_ms > 0 then redis.call('PEXPIRE', key, text(ttl_ms)) end
end

-- Moves FOLDED entries of a journal, from `first` on, into the totals.
local function fold(key, first)
  local fields, rows, amounts = {}, {}, {}
  for i = 1, FOLDED do fields[i] = 'j' .. text(first + i - 1) end
  for _, entry in ipairs(redis.call('HMGET', key, unpack(fields))) do
    if entry then
      local count, amount, event = string.match(entry, '^(%S+) (%S+) (.*)$')
      rows[event] = (rows[event] or 0) + tonumber(count)
      amounts[event] = (amounts[event] or 0) + tonumber(amount)
    end
  end
  for event, amount in pairs(amounts) do
    redis.call('HINCRBY', key, 'r|' .. event, text(rows[event]))
    redis.call('HINCRBY', key, 'a|' .. event, text(amount))
  end
  redis.call('HDEL', key, unpack(fields))
end

-- Writes a counter together with an entry of its journal.
local function enter(key, spent, total, entries, rows, amount, event)
  local entry = text(rows) .. ' ' .. text(amount) .. ' ' .. event
  local made = entries + 1
  redis.call('HSET', key, 's', text(spent), 't', text(math.min(total, MOST)), 'n', text(made), 'j' .. text(entries), entry)
  if made % FOLDED == 0 and made >= 2 * FOLDED then fold(key, made - 2 * FOLDED) end
end

-- Reads a claim from `at` on, where its KIND stands, and its counter; returns it and where the next one begins.
local function read_claim(call, at)
  local claim, kind = {key = next_key(), fresh = {}, places = {}, paid = 0, owed = 0}, call[at]
  local values
  if kind == JOURNALLED then
    claim.rows, claim.event = call[at + 1], call[at + 2]
    values = redis.call('HMGET', claim.key, 's', 't', 'n')
    claim.entries = tonumber(values[3] or '0')
  else
    values = redis.call('HMGET', claim.key, 's', 't')
    if kind >= 0 then
      claim.set, claim.digests = next_key(), next_digests(kind)
    end
  end
  claim.spent, claim.total, claim.absent = tonumber(values[1] or '0'), tonumber(values[2] or '0'), not values[1]
  return claim, kind == JOURNALLED and at + 3 or at + 1
end

local function read_charge(call, at)
  local claim, next_at = read_claim(call, at + 5)
  claim.limit, claim.amount, claim.label_only = call[at], call[at + 1], call[at + 2] == 1
  claim.hard_limit, claim.ttl_ms, claim.need = call[at + 3], call[at + 4], call[at + 1]
  if claim.set then
    in_chunks('SMISMEMBER', claim.set, claim.digests, function(paid, before)
      for i, is_paid in ipairs(paid) do
        if is_paid == 0 then
          claim.fresh[#claim.fresh + 1] = claim.digests[before + i]
          claim.places[#claim.places + 1] = before + i - 1
        end
      end
    end)
    claim.need = #claim.fresh
  end
  claim.fits = claim.spent + claim.need <= claim.limit
  return claim, next_at
end

local function refusal(claim)
  if claim.event and not in_force then return CHANGED end
  if claim.fits then return ALLOW end
  local over = claim.hard_limit >= 0 and claim.total + claim.amount > claim.hard_limit
  if claim.label_only and not over then return 1 end
  return DENY
end

local function apply(claim, admission)
  local paid = claim.fits and claim.need or 0
  local owed = claim.amount
  if claim.set and admission == ALLOW then
    owed = claim.need
    in_chunks('SADD', claim.set, claim.fresh, function() end)
    if owed > 0 then expire(claim.set, claim.ttl_ms) end
  elseif claim.set then
    paid, claim.places = 0, {}
  end
  claim.paid, claim.owed = paid, owed
  claim.spent, claim.total = claim.spent + paid, claim.total + owed
  if claim.event and paid > 0 then
    enter(claim.key, claim.spent, claim.total, claim.entries, claim.rows, paid, claim.event)
  else
    write(claim.key, claim.spent, claim.total)
  end
  if claim.absent then expire(claim.key, claim.ttl_ms) end
end

local function charge(call)
  local claims, admission, binding, at = {}, ALLOW, -1, 2
  while at <= #call do
    local claim
    claim, at = read_charge(call, at)
    claims[#claims + 1] = claim
    local refused = refusal(claim)
    if refused > admission then admission, binding = refused, #claims - 1 end
  end
  put(admission)
  put(binding)
  for _, claim in ipairs(claims) do
    if admission < DENY then apply(claim, admission) else claim.places = {} end
    put(claim.spent)
    put(claim.total)
    put(claim.paid)
    put(claim.owed)
    put(#claim.places)
    for _, place in ipairs(claim.places) do put(place) end
  end
end

local function refund(call)
  local at = 2
  while at <= #call do
    local charged, owed, claim = call[at], call[at + 1], nil
    claim, at = read_claim(call, at + 2)
    if claim.set then in_chunks('SREM', claim.set, claim.digests, function() end) end
    local spent, total = math.max(0, claim.spent - charged), math.max(0, claim.total - owed)
    local taken = claim.spent - spent
    if claim.absent or (claim.event and not in_force) then
      -- A counter that is gone stays gone, and what was charged under other terms is not given back in these.
    elseif claim.event and taken > 0 then
      local rows = taken == charged and claim.rows or math.floor(claim.rows * taken / charged)
      enter(claim.key, spent, total, claim.entries, -rows, -taken, claim.event)
    else
      write(claim.key, spent, total)
    end
  end
end

for _, call in ipairs(cjson.decode(ARGV[1])) do
  if call[1] == 0 then charge(call) else refund(call) end
end
return '[' .. table.concat(out, ',') .. ']'
