//! Operations that no directory of the kernel's has: nothing is made, renamed or removed there.
//!
//! Such requests come here only in a directory graft that can be written to. The kernel answers ENOENT for a name that is
//! not there already when it is looked up (proc_sys_lookup, fs/proc/proc_sysctl.c), and EACCES for a name that is: its
//! directories are writable for nobody (proc_sys_permission).

/// The methods of `fuser::Filesystem` that are refused.
macro_rules! refused {
    () => {
        fn create(
            &self,
            _request: &fuser::Request,
            _parent: fuser::INodeNo,
            _name: &std::ffi::OsStr,
            _mode: u32,
            _umask: u32,
            _flags: i32,
            reply: fuser::ReplyCreate,
        ) {
            reply.error(fuser::Errno::ENOENT);
        }

        fn mknod(
            &self,
            _request: &fuser::Request,
            _parent: fuser::INodeNo,
            _name: &std::ffi::OsStr,
            _mode: u32,
            _umask: u32,
            _rdev: u32,
            reply: fuser::ReplyEntry,
        ) {
            reply.error(fuser::Errno::ENOENT);
        }

        fn mkdir(
            &self,
            _request: &fuser::Request,
            _parent: fuser::INodeNo,
            _name: &std::ffi::OsStr,
            _mode: u32,
            _umask: u32,
            reply: fuser::ReplyEntry,
        ) {
            reply.error(fuser::Errno::ENOENT);
        }

        fn symlink(
            &self,
            _request: &fuser::Request,
            _parent: fuser::INodeNo,
            _name: &std::ffi::OsStr,
            _target: &std::path::Path,
            reply: fuser::ReplyEntry,
        ) {
            reply.error(fuser::Errno::ENOENT);
        }

        fn link(
            &self,
            _request: &fuser::Request,
            _id: fuser::INodeNo,
            _parent: fuser::INodeNo,
            _name: &std::ffi::OsStr,
            reply: fuser::ReplyEntry,
        ) {
            reply.error(fuser::Errno::ENOENT);
        }

        fn rename(
            &self,
            _request: &fuser::Request,
            _parent: fuser::INodeNo,
            _name: &std::ffi::OsStr,
            _new_parent: fuser::INodeNo,
            _new_name: &std::ffi::OsStr,
            _flags: fuser::RenameFlags,
            reply: fuser::ReplyEmpty,
        ) {
            reply.error(fuser::Errno::ENOENT);
        }

        fn unlink(
            &self,
            _request: &fuser::Request,
            _parent: fuser::INodeNo,
            _name: &std::ffi::OsStr,
            reply: fuser::ReplyEmpty,
        ) {
            reply.error(fuser::Errno::EACCES);
        }

        fn rmdir(
            &self,
            _request: &fuser::Request,
            _parent: fuser::INodeNo,
            _name: &std::ffi::OsStr,
            reply: fuser::ReplyEmpty,
        ) {
            reply.error(fuser::Errno::EACCES);
        }
    };
}

pub(super) use refused;
