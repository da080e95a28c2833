// The libraries of node, V8's compilers and its garbage collector, and WebAssembly, with results that are the same everywhere.
'use strict';
const crypto = require('crypto'), zlib = require('zlib'), { Worker } = require('worker_threads');

const data = Buffer.alloc(8000);
for (let i = 0, seed = 7; i < data.length; i++)
	data[i] = (seed = Math.imul(seed, 48271) >>> 0) >>> 24 & (i % 5 ? 255 : 15);
const md5 = (bytes) => crypto.createHash('md5').update(bytes).digest('hex');
console.log('hash', md5(data), crypto.createHmac('sha512', 'key').update(data).digest('base64').slice(0, 24));
console.log('zlib', md5(zlib.deflateSync(data)), zlib.inflateSync(zlib.deflateSync(data)).equals(data), md5(zlib.brotliCompressSync(data, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 5 } })));
const cipher = crypto.createCipheriv('aes-256-gcm', Buffer.alloc(32, 1), Buffer.alloc(12, 2));
console.log('gcm', md5(Buffer.concat([cipher.update(data), cipher.final()])), cipher.getAuthTag().toString('hex'));
console.log('bigint', (3n ** 400n % (2n ** 127n - 1n)).toString(), BigInt.asIntN(64, 1n << 63n));
console.log('intl', new Intl.NumberFormat('de-DE').format(1234567.891), 'straße'.localeCompare('strasse'), 'ﬁ'.normalize('NFKC'));
console.log('math', [Math.sin, Math.exp, Math.cbrt, Math.log1p, Math.tanh].map((f) => f(1.2345)).join(), Math.hypot(3, 4), 0.1 + 0.2);
let live = [], dropped = 0;
for (let i = 0; i < 30000; i++) {
	live.push({ i, text: 'x' + i, next: live[i % 97] });
	if (live.length > 2000) {
		dropped += live.length;
		live = [];
	}
}
console.log('heap', dropped, live.length);
// (func (export "f") (param i32) (result i32) local.get 0  i32.const 3  i32.mul  i32.const 1  i32.add)
const wasm = new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5,
	1, 1, 102, 0, 0, 10, 12, 1, 10, 0, 32, 0, 65, 3, 108, 65, 1, 106, 11)));
let n = 7;
for (let i = 0; i < 10000; i++)
	n = wasm.exports.f(n);
console.log('wasm', n);
const worker = new Worker('const p = require("worker_threads").parentPort; let s = 0; for (let i = 0; i < 1e4; i++) s += i; p.postMessage(s)', { eval: true });
worker.on('message', (sum) => console.log('worker', sum));
