//! From registers and the top of a stack to the calls that led there.

use super::program::Program;
use super::sampler::Sample;
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, Module, Unwinder};

/// Deeper ones are cut.
const FRAMES: usize = 256;

/// Unwinds stacks of one program.
pub struct Unwound<'a> {
    unwinder: UnwinderX86_64<&'a [u8]>,
    cache: CacheX86_64,
}

impl<'a> Unwound<'a> {
    /// `None` on a processor whose registers are others.
    pub fn new(program: &'a Program) -> Option<Unwound<'a>> {
        if !cfg!(target_arch = "x86_64") {
            return None;
        }
        let mut unwinder = UnwinderX86_64::new();
        let (frames, index) = (&program.eh_frame, &program.eh_frame_hdr);
        unwinder.add_module(Module::new(
            program.path.display().to_string(),
            program.text.addresses.clone(),
            0,
            ExplicitModuleSectionInfo {
                text_svma: Some(program.text.addresses.clone()),
                eh_frame_svma: Some(frames.addresses.clone()),
                eh_frame: Some(frames.data.as_slice()),
                eh_frame_hdr_svma: Some(index.addresses.clone()),
                eh_frame_hdr: Some(index.data.as_slice()).filter(|d| !d.is_empty()),
                ..ExplicitModuleSectionInfo::default()
            },
        ));
        Some(Unwound {
            unwinder,
            cache: CacheX86_64::new(),
        })
    }

    /// Addresses of instructions, the innermost first; of callers, in their calls.
    pub fn stack(&mut self, sample: &Sample<'_>) -> Vec<u64> {
        let mut read = |address: u64| {
            let at = usize::try_from(address.checked_sub(sample.sp).ok_or(())?).map_err(drop)?;
            let bytes = sample.stack.get(at..at.saturating_add(8)).ok_or(())?;
            bytes.try_into().map(u64::from_ne_bytes).map_err(drop)
        };
        let registers = UnwindRegsX86_64::new(sample.ip, sample.sp, sample.bp);
        let mut frames =
            self.unwinder
                .iter_frames(sample.ip, registers, &mut self.cache, &mut read);
        let mut stack = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            stack.push(frame.address_for_lookup());
            if stack.len() == FRAMES {
                break;
            }
        }
        stack
    }
}
