//! Spread without randomness: numbers derived from a task's id.

/// A stable 64-bit hash of a task's id and a number. The same on every machine and in every
/// version: jitter and `H` fields must not move when a program is rebuilt.
pub(crate) fn hash(key: &str, salt: u64) -> u64 {
    // FNV-1a over the id, then a finalizer so that neighbouring salts give unrelated numbers.
    let fnv = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut z = fnv ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in `[0, top]` for a task and a nominal time.
pub(crate) fn pick(key: &str, nominal_millis: i64, top: u64) -> u64 {
    let wide = u128::from(hash(key, nominal_millis as u64)) * (u128::from(top) + 1);
    (wide >> 64) as u64
}
