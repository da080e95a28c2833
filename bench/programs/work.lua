-- Everyday Lua: tables, strings, closures, recursion and floating point. Runs in Lua 5.4 and in LuaJIT; prints checksums.
local count = tonumber(arg[1])

local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end

local function sieve(limit)
	local composite, found = {}, 0
	for i = 2, limit do
		if not composite[i] then
			found = found + 1
			for j = i * i, limit, i do composite[j] = true end
		end
	end
	return found
end

local function sorting(n)
	local list, seed = {}, 42
	for i = 1, n do
		seed = (seed * 16807) % 2147483647
		list[i] = seed
	end
	table.sort(list, function(a, b) return a > b end)
	return list[1] % 100000 + list[n]
end

local function strings(n)
	local parts = {}
	for i = 1, n do parts[#parts + 1] = string.format("%d:%x;", i, i * 7) end
	local text = table.concat(parts)
	local digits = select(2, text:gsub("[0-4]", "#"))
	return #text + digits + #text:reverse():upper()
end

local function orbit(n)
	local x, y, vx, vy = 1, 0, 0, 1
	for _ = 1, n do
		local r = (x * x + y * y) ^ 1.5
		vx, vy = vx - x / r * 0.001, vy - y / r * 0.001
		x, y = x + vx * 0.001, y + vy * 0.001
	end
	return x + y
end

local function objects(n)
	local class = {}
	class.__index = class
	function class:add(k) self.total = self.total + k; return self end
	local sum = 0
	for i = 1, n do sum = sum + setmetatable({total = i}, class):add(2):add(3).total end
	return sum
end

local total = 0
for round = 1, count do
	total = total + fib(21) + sieve(20000) + sorting(4000) + strings(3000) + objects(20000)
	total = total + math.floor(orbit(30000) * 1000)
end
print(string.format("%d", total))
