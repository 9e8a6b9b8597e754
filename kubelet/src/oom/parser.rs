//! OOM kills among the kernel's messages. Pure.
//!
//! A kill is told in several lines: the first names who asked for memory, those after it the
//! machine's state and then the victim. kubernetes v1.37
//! third_party/forked/cadvisor/oomparser/oomparser_linux.go looks for the same.

/// A process that the kernel has killed for want of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    pub pid: u32,
    pub process: String,
    /// The cgroup whose limit was reached; `None`: the machine has no more.
    pub cgroup: Option<String>,
}

/// What was read of a kill so far.
#[derive(Debug, Default)]
pub struct Parser {
    /// Lines of a kill are coming.
    open: bool,
    /// As kernels before 5.0 name it, in a line of its own.
    cgroup: Option<String>,
}

impl Parser {
    /// Takes the next message; answers the kill that it completes.
    pub fn take(&mut self, message: &str) -> Option<Kill> {
        if message.contains("invoked oom-killer:") {
            *self = Parser {
                open: true,
                cgroup: None,
            };
            return None;
        }
        if !self.open {
            return None;
        }
        if let Some(cgroup) = limited_before_5_0(message) {
            self.cgroup = Some(cgroup.to_owned());
            return None;
        }
        let kill = of_cgroup(message).or_else(|| self.killed(message))?;
        self.open = false;
        Some(kill)
    }

    /// mm/oom_kill.c `__oom_kill_process`.
    fn killed(&mut self, message: &str) -> Option<Kill> {
        let (_, rest) = message.split_once("Killed process ")?;
        let (pid, rest) = rest.split_once(" (")?;
        let (process, _) = rest.rsplit_once(')')?;
        Some(Kill {
            pid: pid.parse().ok()?,
            process: process.to_owned(),
            cgroup: self.cgroup.take().filter(|c| c != "/"),
        })
    }
}

/// mm/oom_kill.c `dump_oom_summary`, mm/memcontrol.c `mem_cgroup_print_oom_context`: with a
/// cgroup only when it was its limit.
fn of_cgroup(message: &str) -> Option<Kill> {
    let (_, rest) = message.split_once("oom-kill:constraint=")?;
    let (_, rest) = rest.split_once(",oom_memcg=")?;
    let (cgroup, rest) = rest.split_once(",task_memcg=")?;
    let (_, rest) = rest.split_once(",task=")?;
    let (rest, _) = rest.rsplit_once(",uid=")?;
    let (process, pid) = rest.rsplit_once(",pid=")?;
    Some(Kill {
        pid: pid.parse().ok()?,
        process: process.to_owned(),
        cgroup: Some(cgroup.to_owned()).filter(|c| c != "/"),
    })
}

fn limited_before_5_0(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("Task in ")?;
    let (_, cgroup) = rest.split_once(" killed as a result of limit of ")?;
    Some(cgroup.trim())
}

/// The message of a record: `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,…];MESSAGE`, then lines of a
/// dictionary. Documentation/ABI/testing/dev-kmsg.
pub fn message(record: &str) -> Option<&str> {
    let (_, rest) = record.split_once(';')?;
    rest.lines().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kills(records: &[&str]) -> Vec<Kill> {
        let mut parser = Parser::default();
        let messages = records.iter().filter_map(|r| message(r));
        messages.filter_map(|m| parser.take(m)).collect()
    }

    /// Records of a Linux 6.18 whose cgroup was full, as /dev/kmsg gave them.
    const OF_CGROUP: [&str; 5] = [
        "4,77794,6303323815,-;tail invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, \
         oom_score_adj=0\n",
        "4,77800,6303324051,-; oom_kill_process.cold+0x8/0x8a\n",
        "6,77826,6303324241,-;Memory cgroup stats for /full:\n",
        "6,77872,6303324339,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,\
         mems_allowed=0,oom_memcg=/full,task_memcg=/full,task=tail,pid=10412,uid=0\n",
        "3,77873,6303324355,-;Memory cgroup out of memory: Killed process 10412 (tail) \
         total-vm:12972kB, anon-rss:10112kB, file-rss:1656kB, shmem-rss:0kB, UID:0 \
         pgtables:64kB oom_score_adj:0\n",
    ];

    #[test]
    fn kill_for_a_limit_names_the_cgroup_and_is_told_once() {
        let kill = Kill {
            pid: 10412,
            process: "tail".to_owned(),
            cgroup: Some("/full".to_owned()),
        };
        assert_eq!(kills(&OF_CGROUP), [kill]);
    }

    /// Written after mm/oom_kill.c of Linux 6.18.
    const OF_MACHINE: [&str; 3] = [
        "4,1,1,-;kworker invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "6,2,2,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,\
         global_oom,task_memcg=/kubepods/a,task=a (b),pid=7,uid=0",
        "3,3,3,-;Out of memory: Killed process 7 (a (b)) total-vm:1kB, anon-rss:1kB, UID:0",
    ];

    #[test]
    fn kill_for_the_machine_has_no_cgroup_whoever_the_victim_is() {
        let kill = Kill {
            pid: 7,
            process: "a (b)".to_owned(),
            cgroup: None,
        };
        assert_eq!(kills(&OF_MACHINE), std::slice::from_ref(&kill));
        let both: Vec<&str> = OF_CGROUP.into_iter().chain(OF_MACHINE).collect();
        assert_eq!(kills(&both).last(), Some(&kill));
    }

    #[test]
    fn kernels_before_5_0_name_the_cgroup_in_a_line_of_its_own() {
        let of = |limit: &str| {
            let limit = format!("6,2,2,-;Task in /pods/a killed as a result of limit of {limit}");
            let lines = [
                "4,1,1,-;a invoked oom-killer: gfp_mask=0x24000c0, order=0",
                &limit,
                "3,3,3,-;Killed process 9 (a) total-vm:1kB, anon-rss:1kB",
            ];
            kills(&lines).pop().map(|k| (k.pid, k.cgroup))
        };
        assert_eq!(of("/pods"), Some((9, Some("/pods".to_owned()))));
        assert_eq!(of("/"), Some((9, None)));
    }

    #[test]
    fn victim_without_a_beginning_is_nothing() {
        assert_eq!(kills(&OF_MACHINE[1..]), []);
        assert_eq!(kills(&["no record", "6,1,1,-"]), []);
    }

    #[test]
    fn message_ends_where_the_dictionary_begins() {
        assert_eq!(
            message("6,1,1,-,caller=T1;a;b\n SUBSYSTEM=x\n"),
            Some("a;b")
        );
    }
}
