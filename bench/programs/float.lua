-- Lua's number formatting, conversions and integer arithmetic at the edges.
for _, x in ipairs {0.1, 1 / 3, -1e-310, 2 ^ 53 + 1, 1e15, 123456.789e-7, -0.0, 1 / 0, math.pi} do
	print(string.format("%.17g %a %.3f %g", x, x, x, x))
end
for _, x in ipairs {math.maxinteger, math.mininteger, -7, 7, 255} do
	print(x + 1, x // 3, x % -5, x >> 3, x << 60, x ~ 0x55, ~x, x / 2, math.tointeger(x * 1.0))
end
print(("%5d|%-8s|%08.3f|%x|%q"):format(42, "left", -3.14159, 48879, 'a"\n'))
print(string.pack("<i4dz", -2, 2.5, "text"):byte(1, -1))
