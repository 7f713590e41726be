-- Charges and refunds a batch of calls on one ledger, one after the other, atomically. Semantics: guard/model/ledger.py.
--
-- ARGV[1]: JSON list of calls, each a flat list of integers:
--   {0, (limit, amount, label_only, hard_limit or -1, ttl_ms or 0, digests or -1)...}  a charge
--   {1, (spent, total, digests or -1)...}                                               a refund
-- ARGV[2]: all digests of all calls, 16 bytes each, in the order of the calls; those of one claim differ from each other.
-- KEYS: per claim its counter (a hash of s: spent, t: total), and if it has digests the set of those paid for.
-- Returns a JSON list of integers: per charge admission, binding or -1, and per claim spent, total, what was added to
-- each of the two, n, and the places of the n new digests among the claim's own, from 0. A refund returns nothing.
--
-- Integers stay below 2^53, where a Lua number is exact; `%.0f` writes them so, which tostring would not.

local DIGEST, CHUNK, MOST = 16, 1000, 9007199254740991
local keys_read, digests_read, out = 0, 0, {}

local function put(number) out[#out + 1] = string.format('%.0f', number) end

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

local function read(key)
  local values = redis.call('HMGET', key, 's', 't')
  return tonumber(values[1] or '0'), tonumber(values[2] or '0'), not values[1]
end

local function write(key, spent, total)
  redis.call('HSET', key, 's', string.format('%.0f', spent), 't', string.format('%.0f', math.min(total, MOST)))
end

local function expire(key, ttl_ms)
  if ttl_ms > 0 then redis.call('PEXPIRE', key, string.format('%.0f', ttl_ms)) end
end

local function read_claim(call, at)
  local claim = {limit = call[at], amount = call[at + 1], label_only = call[at + 2] == 1, hard_limit = call[at + 3],
    ttl_ms = call[at + 4], key = next_key(), fresh = {}, places = {}, paid = 0, owed = 0}
  claim.spent, claim.total, claim.absent = read(claim.key)
  claim.need = claim.amount
  if call[at + 5] >= 0 then
    claim.set = next_key()
    local digests = next_digests(call[at + 5])
    in_chunks('SMISMEMBER', claim.set, digests, function(paid, before)
      for i, is_paid in ipairs(paid) do
        if is_paid == 0 then
          claim.fresh[#claim.fresh + 1] = digests[before + i]
          claim.places[#claim.places + 1] = before + i - 1
        end
      end
    end)
    claim.need = #claim.fresh
  end
  claim.fits = claim.spent + claim.need <= claim.limit
  return claim
end

local function refusal(claim)
  if claim.fits then return 0 end
  local over = claim.hard_limit >= 0 and claim.total + claim.amount > claim.hard_limit
  if claim.label_only and not over then return 1 end
  return 2
end

local function apply(claim, admission)
  local paid = claim.fits and claim.need or 0
  local owed = claim.amount
  if claim.set and admission == 0 then
    owed = claim.need
    in_chunks('SADD', claim.set, claim.fresh, function() end)
    if owed > 0 then expire(claim.set, claim.ttl_ms) end
  elseif claim.set then
    paid, claim.places = 0, {}
  end
  claim.paid, claim.owed = paid, owed
  claim.spent, claim.total = claim.spent + paid, claim.total + owed
  write(claim.key, claim.spent, claim.total)
  if claim.absent then expire(claim.key, claim.ttl_ms) end
end

local function charge(call)
  local claims, admission, binding = {}, 0, -1
  for at = 2, #call, 6 do
    local claim = read_claim(call, at)
    claims[#claims + 1] = claim
    local refused = refusal(claim)
    if refused > admission then admission, binding = refused, #claims - 1 end
  end
  put(admission)
  put(binding)
  for _, claim in ipairs(claims) do
    if admission < 2 then apply(claim, admission) else claim.places = {} end
    put(claim.spent)
    put(claim.total)
    put(claim.paid)
    put(claim.owed)
    put(#claim.places)
    for _, place in ipairs(claim.places) do put(place) end
  end
end

local function refund(call)
  for at = 2, #call, 3 do
    local key = next_key()
    if call[at + 2] >= 0 then
      local set = next_key()
      in_chunks('SREM', set, next_digests(call[at + 2]), function() end)
    end
    local spent, total, absent = read(key)
    if not absent then
      write(key, math.max(0, spent - call[at]), math.max(0, total - call[at + 1]))
    end
  end
end

for _, call in ipairs(cjson.decode(ARGV[1])) do
  if call[1] == 0 then charge(call) else refund(call) end
end
return '[' .. table.concat(out, ',') .. ']'
