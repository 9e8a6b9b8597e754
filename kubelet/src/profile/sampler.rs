//! Samples of this process's threads, from the kernel: perf_event_open(2).

use perf_event::events::Software;
use perf_event::{Builder, SampleFlag, Sampler};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// Of a thread's CPU time between two samples; Go's runtime/pprof has as many.
pub const PERIOD: Duration = Duration::from_millis(10);

/// Of each sample's stack; what is further out is left out. The kernel takes less than
/// 64 KiB, in multiples of 8.
const STACK: u32 = 16 << 10;
/// Of a thread: seven samples, and no thread takes more in 70 ms.
const BUFFER: usize = 128 << 10;

/// include/uapi/linux/perf_event.h `PERF_RECORD_SAMPLE`.
const RECORD_SAMPLE: u32 = 9;
/// arch/x86/include/uapi/asm/perf_regs.h: BP, SP and IP, which come in this order.
const REGISTERS: u64 = 1 << 6 | 1 << 7 | 1 << 8;

/// What one thread did at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample<'a> {
    pub bp: u64,
    pub sp: u64,
    pub ip: u64,
    /// From `sp` upwards.
    pub stack: &'a [u8],
}

/// Those of this process, but for the one that asks.
#[derive(Default)]
pub struct Threads(BTreeMap<i32, Sampler>);

impl Threads {
    /// Samples threads that are new, too, and no longer those that have ended.
    ///
    /// # Errors
    /// When the kernel gives no samples.
    pub fn follow(&mut self) -> io::Result<()> {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        let entries = std::fs::read_dir("/proc/self/task")?.flatten();
        let alive: Vec<i32> = entries
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .filter(|id| *id != own)
            .collect();
        self.0.retain(|id, _| alive.contains(id));
        for id in alive {
            if self.0.contains_key(&id) {
                continue;
            }
            match sampler(id) {
                Ok(sampler) => drop(self.0.insert(id, sampler)),
                // It has ended meanwhile.
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// What there is by now.
    pub fn drain(&mut self, mut each: impl FnMut(Sample<'_>)) {
        for sampler in self.0.values_mut() {
            while let Some(record) = sampler.next_record() {
                if record.ty() == RECORD_SAMPLE {
                    let record = record.to_contiguous();
                    Sample::of(&record).into_iter().for_each(&mut each);
                }
            }
        }
    }
}

fn sampler(thread: i32) -> io::Result<Sampler> {
    let mut builder = Builder::new(Software::TASK_CLOCK);
    let counter = builder
        .observe_pid(thread)
        .sample_period(PERIOD.as_nanos() as u64)
        .sample(SampleFlag::REGS_USER | SampleFlag::STACK_USER)
        .sample_regs_user(REGISTERS)
        .sample_stack_user(STACK)
        // What the kernel does for a thread is time of the call that asked for it.
        .include_kernel()
        .build()?;
    let mut sampler = counter.sampled(BUFFER)?;
    sampler.as_counter_mut().enable()?;
    Ok(sampler)
}

impl<'a> Sample<'a> {
    /// perf_event_open(2): `u64 abi; u64 regs[3]; u64 size; char data[size]; u64 dyn_size`,
    /// without the registers where there are none (a thread that has ended).
    fn of(record: &'a [u8]) -> Option<Sample<'a>> {
        let number = |at: usize| {
            let bytes = record.get(at..at + 8)?;
            Some(u64::from_ne_bytes(bytes.try_into().ok()?))
        };
        if number(0)? == 0 {
            return None;
        }
        let size = usize::try_from(number(32)?).ok()?;
        let copied = match size {
            0 => 0,
            size => usize::try_from(number(40 + size)?).ok()?.min(size),
        };
        Some(Sample {
            bp: number(8)?,
            sp: number(16)?,
            ip: number(24)?,
            stack: record.get(40..40 + copied)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_read_as_the_kernel_writes_it() {
        let record =
            |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_ne_bytes()).collect() };
        let whole = record(&[2, 10, 20, 30, 16, 7, 8, 8]);
        let sample = Sample::of(&whole).unwrap();
        assert_eq!((sample.bp, sample.sp, sample.ip), (10, 20, 30));
        assert_eq!(sample.stack, 7_u64.to_ne_bytes());
        assert_eq!(Sample::of(&record(&[0, 0])), None);
        assert_eq!(Sample::of(&whole[..50]), None);
        let bare = record(&[2, 10, 20, 30, 0]);
        assert!(Sample::of(&bare).unwrap().stack.is_empty());
    }
}
