//! Reads of kernel structs, at offsets that user space resolved from BTF.
//!
//! The loads are direct, through pointers whose BTF type the verifier knows. So no
//! `bpf_probe_read_kernel` is needed, which lockdown=confidentiality rejects. A faulting load
//! reads as zero (`BPF_PROBE_MEM`).

use core::mem::MaybeUninit;

use portwatch_common::Layout;

/// Set by user space before load. The verifier sees a frozen constant.
#[unsafe(no_mangle)]
pub static LAYOUT: MaybeUninit<Layout> = MaybeUninit::zeroed();

/// Reads one field of [`LAYOUT`].
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: the static consists of plain integers, all initialised; volatile keeps the
        // compiler from folding in the zeros that it was built with.
        unsafe { core::ptr::read_volatile(&raw const (*$crate::layout::LAYOUT.as_ptr()).$field) }
    }};
}

/// Loads a `$ty` at the field's offset from `$base`.
macro_rules! load {
    ($base:expr, $field:ident, $ty:ty) => {
        $crate::layout::load_at::<$ty, _>($base, $crate::layout::offset!($field))
    };
}

pub(crate) use {load, offset};

/// Loads a `T`, `offset` bytes after `base`.
#[inline(always)]
pub fn load_at<T: Copy, B>(base: *const B, offset: u32) -> T {
    // SAFETY: `base` came from the context or from another such load, and the offset from the
    // kernel's own BTF; the verifier checks both.
    unsafe { core::ptr::read_volatile(base.cast::<u8>().add(offset as usize).cast::<T>()) }
}

/// Returns whether the kernel has the field.
macro_rules! has {
    ($field:ident) => {
        $crate::layout::offset!($field) != portwatch_common::ABSENT
    };
}

pub(crate) use has;
