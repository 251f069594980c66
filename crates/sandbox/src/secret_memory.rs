//! Pages for a secret: out of swap, out of core dumps, out of children, between two guard pages, wiped when freed (KEY-33).
//!
//! Where the kernel has `memfd_secret` the pages leave its direct map as well, so that neither another process nor
//! `/proc/<pid>/mem` reads them; elsewhere they are anonymous pages under `mlock`. There is no third, unlocked form:
//! a secret that could reach the swap device is refused.

use std::{ffi::c_void, ptr::NonNull};

use rustix::{
    fd::{FromRawFd, OwnedFd},
    io::Errno,
    mm::{self, Advice, MapFlags, ProtFlags},
};
use thiserror::Error;

/// Bytes of one secret; it stays far below the 64 KiB that old systems let an ordinary user lock.
pub const SECRET_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SecretMemoryError {
    #[error("secret memory holds 1 to {SECRET_BYTES_MAX} bytes, not {0}")]
    Size(usize),
    #[error(
        "cannot protect secret memory: {step} failed ({errno}); raise RLIMIT_MEMLOCK if it is below 64 KiB"
    )]
    Kernel { step: &'static str, errno: Errno },
}

/// How the pages are kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretProtection {
    /// `memfd_secret`: unmapped from the kernel too.
    HiddenFromKernel,
    /// `mmap` and `mlock`.
    Locked,
}

/// Owns the pages. Not `Clone`, and prints nothing of what it holds.
pub struct SecretMemory {
    /// First guard page.
    region: NonNull<c_void>,
    region_bytes: usize,
    data: NonNull<u8>,
    bytes: usize,
    protection: SecretProtection,
    mapped: bool,
}

// SAFETY: the pages belong to this value alone and are reached only through its borrows.
unsafe impl Send for SecretMemory {}

fn failed(step: &'static str) -> impl Fn(Errno) -> SecretMemoryError {
    move |errno| SecretMemoryError::Kernel { step, errno }
}

impl SecretMemory {
    /// Zeroed memory of exactly `bytes`.
    pub fn new(bytes: usize) -> Result<Self, SecretMemoryError> {
        if bytes == 0 || bytes > SECRET_BYTES_MAX {
            return Err(SecretMemoryError::Size(bytes));
        }
        let page = page_bytes()?;
        let data_bytes = bytes.div_ceil(page) * page;
        let region_bytes = data_bytes + 2 * page;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of anyone else.
        let region = unsafe {
            mm::mmap_anonymous(std::ptr::null_mut(), region_bytes, ProtFlags::empty(), MapFlags::PRIVATE)
        };
        let region = region.map_err(failed("reserving pages"))?;
        let (Some(region), Some(data)) =
            (NonNull::new(region), NonNull::new(region.cast::<u8>().wrapping_add(page)))
        else {
            return Err(SecretMemoryError::Kernel { step: "reserving pages", errno: Errno::NOMEM });
        };
        // From here on `memory` unmaps the region, whatever fails.
        let protection = SecretProtection::Locked;
        let mut memory = Self { region, region_bytes, data, bytes, protection, mapped: false };
        match memory.map_hidden(data_bytes) {
            Ok(()) => memory.protection = SecretProtection::HiddenFromKernel,
            Err(_) => memory.map_locked(data_bytes)?,
        }
        // SAFETY: the range is the mapping just made; the advice changes neither contents nor access.
        unsafe { mm::madvise(memory.data.as_ptr().cast(), data_bytes, Advice::LinuxDontFork) }
            .map_err(failed("keeping children out"))?;
        memory.mapped = true;
        Ok(memory)
    }

    fn map_hidden(&self, data_bytes: usize) -> Result<(), Errno> {
        // SAFETY: the call takes flags and returns a descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or(Errno::NOSYS)?;
        // SAFETY: the kernel has just made this descriptor for us and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        rustix::fs::ftruncate(&fd, data_bytes as u64)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the range lies inside the region that this value reserved and nothing else uses.
        unsafe { mm::mmap(self.data.as_ptr().cast(), data_bytes, prot, flags, &fd, 0) }.map(|_| ())
    }

    fn map_locked(&self, data_bytes: usize) -> Result<(), SecretMemoryError> {
        let at = self.data.as_ptr().cast::<c_void>();
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as above; the range belongs to the reserved region.
        unsafe { mm::mmap_anonymous(at, data_bytes, prot, MapFlags::PRIVATE | MapFlags::FIXED) }
            .map_err(failed("mapping pages"))?;
        // SAFETY: locks the pages just mapped.
        unsafe { mm::mlock(at, data_bytes) }.map_err(failed("mlock"))?;
        // SAFETY: the range is the mapping just made; the advice changes neither contents nor access.
        unsafe { mm::madvise(at, data_bytes, Advice::LinuxDontDump) }
            .map_err(failed("keeping core dumps out"))
    }

    #[must_use]
    pub const fn protection(&self) -> SecretProtection {
        self.protection
    }

    #[must_use]
    pub const fn as_slice(&self) -> &[u8] {
        // SAFETY: `data` points at `bytes` mapped, initialised (zeroed or written) bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.bytes) }
    }

    pub const fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.bytes) }
    }

    /// Overwrites the contents with zeros in a way that the compiler keeps.
    pub fn wipe(&mut self) {
        for byte in self.as_mut_slice() {
            // SAFETY: `byte` is a valid, aligned reference.
            unsafe { std::ptr::write_volatile(byte, 0) };
        }
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    }
}

/// From the C library, which was told at its start: rustix would ask the kernel again, and panics under the boundary's
/// filter where the kernel is older than `PR_GET_AUXV`.
fn page_bytes() -> Result<usize, SecretMemoryError> {
    // SAFETY: sysconf with a number only.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let size = usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two());
    size.ok_or(SecretMemoryError::Kernel { step: "asking for the page size", errno: Errno::INVAL })
}

impl Drop for SecretMemory {
    fn drop(&mut self) {
        // Without this the data pages may not be mapped yet: `new` failed half-way and nothing was written.
        if self.mapped {
            self.wipe();
        }
        // SAFETY: the region was mapped by `new` and no borrow of it outlives `self`.
        let _ = unsafe { mm::munmap(self.region.as_ptr(), self.region_bytes) };
    }
}

impl std::fmt::Debug for SecretMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretMemory({} bytes, {:?})", self.bytes, self.protection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protection bits of the mappings before, at and after an address.
    fn neighbours(address: usize) -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let rows: Vec<_> = maps.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        let holds = |row: &Vec<&str>| {
            let (from, to) = row[0].split_once('-').unwrap();
            let at = |text| usize::from_str_radix(text, 16).unwrap();
            (at(from)..at(to)).contains(&address)
        };
        let at = rows.iter().position(holds).unwrap();
        rows[at - 1..=at + 1].iter().map(|row| row[1][..3].to_owned()).collect()
    }

    /// covers: KEY-33
    #[test]
    fn pages_are_locked_and_stand_between_guard_pages() {
        let mut memory = SecretMemory::new(32).unwrap();
        memory.as_mut_slice().copy_from_slice(&[7; 32]);
        assert_eq!(memory.as_slice(), [7; 32]);
        let address = memory.data.as_ptr() as usize;
        assert_eq!(neighbours(address), ["---", "rw-", "---"]);
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let own = smaps.split_once(&format!("{address:08x}-")).unwrap().1;
        let flags = own.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
        for flag in ["lo", "dd", "dc"] {
            assert!(flags.split_whitespace().any(|f| f == flag), "{flag} is missing in {flags}");
        }
        memory.wipe();
        assert_eq!(memory.as_slice(), [0; 32]);
    }

    #[test]
    fn the_size_is_bounded() {
        assert!(SecretMemory::new(SECRET_BYTES_MAX).is_ok());
        assert_eq!(SecretMemory::new(0).unwrap_err(), SecretMemoryError::Size(0));
        let over = SECRET_BYTES_MAX + 1;
        assert_eq!(SecretMemory::new(over).unwrap_err(), SecretMemoryError::Size(over));
    }
}
