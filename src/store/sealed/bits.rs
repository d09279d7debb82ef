//! Bits, the lowest of a byte first, and numbers in Rice's code: `value >> low_bits` zeros, a one, and the low bits of
//! the value. For random gaps its length is within a few hundredths of a bit of the optimum.
//!
//! Invariant: reading never goes beyond the bytes; where they end early the answer is none.
//!
//! Not here: which numbers are written so, and with how many low bits.

/// Bits in the making.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    /// Appends the low `count` bits of `value`; at most 32.
    pub(super) fn put(&mut self, value: u64, count: u32) {
        let mask = (1_u64 << count.min(32)) - 1;
        self.pending |= (value & mask) << self.pending_bits;
        self.pending_bits += count.min(32);
        if self.pending_bits >= 32 {
            let [first, second, third, fourth, ..] = self.pending.to_le_bytes();
            self.bytes.extend([first, second, third, fourth]);
            self.pending >>= 32;
            self.pending_bits -= 32;
        }
    }

    /// Appends `value` in Rice's code.
    pub(super) fn put_rice(&mut self, value: u64, low_bits: u32) {
        let mut zeros = value >> low_bits;
        while zeros >= 32 {
            self.put(0, 32);
            zeros -= 32;
        }
        self.put(1 << zeros, u32::try_from(zeros).unwrap_or_default() + 1);
        self.put(value, low_bits);
    }

    /// The bytes; the last is filled up with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let left = self.pending_bits.div_ceil(8) as usize;
        self.bytes.extend(self.pending.to_le_bytes().into_iter().take(left));
        self.bytes
    }
}

/// Bits being read.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next bits. Above `pending_bits` there may be more of them, which are read again.
    pending: u64,
    pending_bits: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pending: 0, pending_bits: 0 }
    }

    /// Makes at least 56 bits pending, or all there are.
    fn fill(&mut self) {
        if let Some(next) = self.bytes.first_chunk::<8>() {
            self.pending |= u64::from_le_bytes(*next) << self.pending_bits;
            let taken = (63 - self.pending_bits) >> 3;
            self.bytes = self.bytes.get(taken as usize..).unwrap_or_default();
            self.pending_bits += taken * 8;
            return;
        }
        while self.pending_bits < 56
            && let Some((byte, rest)) = self.bytes.split_first()
        {
            self.pending |= u64::from(*byte) << self.pending_bits;
            self.pending_bits += 8;
            self.bytes = rest;
        }
    }

    fn consume(&mut self, count: u32) {
        self.pending = self.pending.checked_shr(count).unwrap_or_default();
        self.pending_bits -= count;
    }

    /// Takes `count` bits; at most 32.
    pub(super) fn take(&mut self, count: u32) -> Option<u64> {
        self.fill();
        if count > self.pending_bits.min(32) {
            return None;
        }
        let value = self.pending & ((1 << count) - 1);
        self.consume(count);
        Some(value)
    }

    /// Takes a number in Rice's code.
    pub(super) fn take_rice(&mut self, low_bits: u32) -> Option<u64> {
        let mut high = 0_u64;
        loop {
            self.fill();
            if self.pending_bits == 0 {
                return None;
            }
            let zeros = self.pending.trailing_zeros().min(self.pending_bits);
            high += u64::from(zeros);
            if zeros < self.pending_bits {
                self.consume(zeros + 1);
                break;
            }
            self.consume(zeros);
        }
        Some(high << low_bits | self.take(low_bits)?)
    }
}
