// Everyday JavaScript: typed arrays, objects, closures, strings, maps, regular expressions, JSON, BigInt. Prints checksums.
'use strict';

class Point {
	constructor(x, y) { this.x = x; this.y = y; }
	add(other) { return new Point(this.x + other.x, this.y + other.y); }
}

function mandelbrot(size) {
	let inside = 0;
	for (let py = 0; py < size; py++) {
		for (let px = 0; px < size; px++) {
			const cx = px / size * 3 - 2, cy = py / size * 2 - 1;
			let x = 0, y = 0, n = 0;
			while (n < 60 && x * x + y * y < 4) {
				[x, y] = [x * x - y * y + cx, 2 * x * y + cy];
				n++;
			}
			inside += n;
		}
	}
	return inside;
}

function sorting(count) {
	const list = new Uint32Array(count);
	let seed = 1;
	for (let i = 0; i < count; i++)
		list[i] = seed = Math.imul(seed, 1664525) + 1013904223 >>> 0;
	list.sort();
	return list[count >> 1] ^ list[0];
}

function objects(count) {
	let p = new Point(0, 0);
	for (let i = 0; i < count; i++)
		p = p.add(new Point(i & 7, 1));
	return p.x + p.y;
}

function text(count) {
	const seen = new Map();
	for (let i = 0; i < count; i++) {
		const key = `k${i * 7919 % 513}`;
		seen.set(key, (seen.get(key) || 0) + i);
	}
	const json = JSON.stringify(Object.fromEntries(seen));
	return json.replace(/"k(\d+)"/g, (all, n) => n % 3).length + Object.keys(JSON.parse(json)).length;
}

let total = 0, big = 1n;
for (let round = 0; round < Number(process.argv[2]); round++) {
	total += mandelbrot(120) + sorting(20000) + objects(50000) + text(10000);
	big = big * 1000003n % (1n << 200n);
}
console.log(total, big.toString(16));
