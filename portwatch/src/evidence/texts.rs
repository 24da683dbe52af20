//! Visits every text in the evidence of one event. Each type is destructured to its last
//! field, so that a new field cannot be forgotten here.

use super::{
    Binder, Cgroup, Device, Ephemeral, Evidence, Fact, Failure, Gap, LastHolder, LeftBy, Netns,
    Pod, Process, Share, Socket, Supervisor, TimeWait, Usage, Workload,
};

/// The function for each text.
type Each<'a> = &'a mut dyn FnMut(&mut String);

impl Evidence {
    /// Calls `each` for every text except command lines, which have their own type
    /// ([`Cmdline`](crate::redact::Cmdline)).
    pub fn texts(&mut self, each: Each<'_>) {
        let Self {
            time: _,
            kernel,
            subject: _,
            failure,
            process,
            netns,
            sockets,
            time_wait,
            connections: _,
            ephemeral,
            last_holder,
            previous_holder,
            gaps,
        } = self;
        let Failure {
            stage: _,
            errno,
            protocol: _,
            family: _,
            address: _,
            port: _,
            device,
            reuseaddr: _,
            reuseport: _,
            v6only: _,
            uid: _,
            cookie: _,
        } = failure;
        let Netns { inode: _, cookie: _, name, host: _ } = netns;
        [kernel, errno].into_iter().chain(name).for_each(&mut *each);
        device.iter_mut().for_each(|device| device.texts(each));
        process.texts(each);
        sockets.iter_mut().for_each(|socket| socket.texts(each));
        let TimeWait { count: _, max_remaining_ms: _, left_by } = time_wait;
        if let Some(LeftBy { pid: _, program, unit, left: _ }) = left_by {
            program.iter_mut().chain(unit).for_each(&mut *each);
        }
        if let Some(Ephemeral { low: _, high: _, reserved, usage }) = ephemeral {
            each(reserved);
            if let Some(Usage { ports: _, states: _, most_by }) = usage {
                let most_by = most_by.iter_mut();
                most_by.for_each(|Share { process, sockets: _, of: _ }| process.texts(each));
            }
        }
        for holder in last_holder.iter_mut().chain(previous_holder) {
            let LastHolder {
                process,
                cookie: _,
                address: _,
                reuseaddr: _,
                reuseport: _,
                bound: _,
                left: _,
            } = holder;
            process.texts(each);
        }
        for Gap { what, why, denied: _ } in gaps {
            if let Fact::Other(name) = what {
                each(name);
            }
            each(why);
        }
    }
}

impl Device {
    fn texts(&mut self, each: Each<'_>) {
        let Self { index: _, name } = self;
        name.iter_mut().for_each(each);
    }
}

impl Socket {
    /// Calls `each` for every text of the socket and its holders except command lines.
    pub fn texts(&mut self, each: Each<'_>) {
        let Self {
            state: _,
            local: _,
            remote: _,
            inode: _,
            cookie: _,
            uid: _,
            cgroup_id: _,
            reuseaddr: _,
            reuseport: _,
            v6only: _,
            device,
            expires_ms: _,
            refused: _,
            binder,
            origin: _,
            unheld: _,
            holders,
        } = self;
        device.iter_mut().for_each(|device| device.texts(each));
        if let Some(Binder { pid: _, comm, cmdline: _, alive: _, uid: _, user, started: _ }) =
            binder
        {
            std::iter::once(comm).chain(user).for_each(&mut *each);
        }
        holders.iter_mut().for_each(|holder| holder.texts(each));
    }
}

impl Process {
    /// Calls `each` for every text of the process except its command line.
    pub fn texts(&mut self, each: Each<'_>) {
        let Self {
            pid: _,
            tid: _,
            fd: _,
            ppid: _,
            ns_pid: _,
            netns: _,
            core_dumping: _,
            ended: _,
            zombie: _,
            state: _,
            sigterm: _,
            ancestors: _,
            comm,
            exe,
            cwd,
            cmdline: _,
            vouched_by: _,
            runtime: _,
            uid: _,
            user,
            started: _,
            cgroup,
            unit,
            unit_owner: _,
            container,
            pod,
            session,
            session_user,
            tty,
            supervisor,
            workload,
            left_over: _,
        } = self;
        let own = [comm, exe, cwd, user, unit, container, pod, session, session_user, tty];
        own.into_iter().flatten().for_each(&mut *each);
        if let Some(Cgroup { id: _, path }) = cgroup {
            path.iter_mut().for_each(&mut *each);
        }
        if let Some(Supervisor {
            kind: _,
            name,
            pid: _,
            restart,
            restarts: _,
            main_pid: _,
            control_pid: _,
            result,
            exit_code: _,
            exit_status: _,
            others: _,
            uid: _,
            config,
        }) = supervisor
        {
            name.iter_mut().chain(restart).chain(result).chain(config).for_each(&mut *each);
        }
        if let Some(Workload { engine: _, id, name, image, pod, published }) = workload {
            [id, name, image, published].into_iter().flatten().for_each(&mut *each);
            if let Some(Pod { namespace, name }) = pod {
                each(namespace);
                each(name);
            }
        }
    }
}
