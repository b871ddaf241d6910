(function () {
  "use strict";
  // Without SubtleCrypto: it is missing on plain HTTP, and slower for one block at a time.
  var main = document.querySelector("main"), token = main.dataset.token, bits = +main.dataset.bits;
  var state = document.getElementById("state"), bar = document.querySelector("progress");
  var primes = [], K = new Uint32Array(64), H = new Uint32Array(8), w = new Uint32Array(64);
  for (var n = 2; primes.length < 64; n++) {
    if (primes.every(function (p) { return n % p; })) primes.push(n);
  }
  function fraction(x) { return (x - Math.floor(x)) * 4294967296; }
  for (var i = 0; i < 64; i++) {
    if (i < 8) H[i] = fraction(Math.sqrt(primes[i]));
    K[i] = fraction(Math.cbrt(primes[i]));
  }
  // The first word of SHA-256 of a text that fits one block.
  function first(text) {
    var length = text.length, t;
    w.fill(0, 0, 16);
    for (t = 0; t < length; t++) w[t >> 2] |= text.charCodeAt(t) << (24 - 8 * (t & 3));
    w[length >> 2] |= 128 << (24 - 8 * (length & 3));
    w[15] = 8 * length;
    for (t = 16; t < 64; t++) {
      var x = w[t - 15], y = w[t - 2];
      w[t] = w[t - 16] + w[t - 7] + ((x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3) +
        ((y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10);
    }
    var a = H[0], b = H[1], c = H[2], d = H[3], e = H[4], f = H[5], g = H[6], h = H[7];
    for (t = 0; t < 64; t++) {
      var one = h + ((e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7)) + (e & f ^ ~e & g) + K[t] + w[t] | 0;
      var two = ((a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10)) + (a & b ^ a & c ^ b & c) | 0;
      h = g; g = f; f = e; e = d + one | 0; d = c; c = b; b = a; a = one + two | 0;
    }
    return H[0] + a >>> 0;
  }
  var number = 0, expected = Math.pow(2, bits), limit = Math.pow(2, 32 - bits);
  function work() {
    var until = Date.now() + 40;
    do {
      for (var k = 0; k < 500; k++, number++) {
        if (first(token + number) < limit) {
          state.textContent = main.dataset.done;
          location.replace(main.dataset.answer + "&n=" + number);
          return;
        }
      }
    } while (Date.now() < until);
    bar.value = 1 - Math.exp(-number / expected);
    setTimeout(work, 0);
  }
  bar.hidden = false;
  work();
})();
