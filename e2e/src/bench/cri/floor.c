// What the kernel alone takes for a pod's start, an exec and a teardown: the system calls that
// no runtime can do without, one after another from one small process.
//
// Prints a line a step: verb, step, median of the rounds in milliseconds. Makes a network and a
// mount namespace of its own, and cgroups named "floor" below its own; leaves nothing.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 100, STEPS = 32, HIERARCHIES = 16 };

struct step { const char *verb, *name; double took[ROUNDS]; int rounds; };
// Shared with children, who measure what they do themselves.
static struct { struct step steps[STEPS]; int count; } *table;

// Controllers (or name) and the directory of our own cgroup, a hierarchy each.
static struct { char name[64]; int dir, own, v2; } hierarchies[HIERARCHIES];
static int hierarchy_count, hybrid, unified = -1;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void took(const char *verb, const char *name, double begun)
{
	double ms = now() - begun;
	struct step *s = table->steps;
	for (; s < table->steps + table->count; s++)
		if (!strcmp(s->verb, verb) && !strcmp(s->name, name))
			break;
	if (s == table->steps + table->count) {
		table->count++;
		s->verb = verb;
		s->name = name;
	}
	s->took[s->rounds++] = ms;
}

#define TIMED(verb, name, work) do { double begun = now(); work; took(verb, name, begun); } while (0)

static int must(int result, const char *what)
{
	if (result < 0)
		err(1, "%s", what);
	return result;
}

// rtnetlink: a message is a header, a fixed part and attributes.
struct message { struct nlmsghdr head; char rest[1024]; };

static void *begin(struct message *m, int type, int flags, size_t fixed)
{
	memset(m, 0, sizeof *m);
	m->head.nlmsg_type = type;
	m->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	m->head.nlmsg_len = NLMSG_LENGTH(fixed);
	return NLMSG_DATA(&m->head);
}

static struct rtattr *add(struct message *m, int type, const void *data, size_t size)
{
	struct rtattr *a = (void *)((char *)m + NLMSG_ALIGN(m->head.nlmsg_len));
	a->rta_type = type;
	a->rta_len = RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(a), data, size);
	m->head.nlmsg_len = NLMSG_ALIGN(m->head.nlmsg_len) + RTA_ALIGN(a->rta_len);
	return a;
}

static void close_nest(struct message *m, struct rtattr *a)
{
	a->rta_len = (char *)m + NLMSG_ALIGN(m->head.nlmsg_len) - (char *)a;
}

static void ask(int socket, struct message *m, const char *what)
{
	char answer[4096];
	must(send(socket, m, m->head.nlmsg_len, 0), what);
	must(recv(socket, answer, sizeof answer, 0), what);
	errno = -((struct nlmsgerr *)NLMSG_DATA(answer))->error;
	if (errno)
		err(1, "%s", what);
}

static int netlink(void)
{
	return must(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0), "netlink");
}

static void make_bridge(int socket)
{
	struct message m;
	struct ifinfomsg *link = begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *link);
	link->ifi_flags = link->ifi_change = IFF_UP;
	add(&m, IFLA_IFNAME, "bridge", 7);
	struct rtattr *info = add(&m, IFLA_LINKINFO, 0, 0);
	add(&m, IFLA_INFO_KIND, "bridge", 6);
	close_nest(&m, info);
	ask(socket, &m, "bridge");
}

// One request: both ends made, the far one in the pod, the near one up in the bridge.
static void make_wire(int socket, int bridge, int netns)
{
	struct message m;
	struct ifinfomsg *link = begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *link);
	link->ifi_flags = link->ifi_change = IFF_UP;
	add(&m, IFLA_IFNAME, "near", 5);
	add(&m, IFLA_MASTER, &bridge, sizeof bridge);
	struct rtattr *info = add(&m, IFLA_LINKINFO, 0, 0);
	add(&m, IFLA_INFO_KIND, "veth", 4);
	struct rtattr *data = add(&m, IFLA_INFO_DATA, 0, 0);
	struct rtattr *peer = add(&m, VETH_INFO_PEER, 0, 0);
	m.head.nlmsg_len += sizeof *link;
	add(&m, IFLA_IFNAME, "eth0", 5);
	add(&m, IFLA_NET_NS_FD, &netns, sizeof netns);
	close_nest(&m, peer);
	close_nest(&m, data);
	close_nest(&m, info);
	ask(socket, &m, "veth");
}

static void address(int socket, int index)
{
	struct message m;
	unsigned ip = htonl(0x0a580002), gateway = htonl(0x0a580001);
	struct ifinfomsg *link = begin(&m, RTM_NEWLINK, 0, sizeof *link);
	link->ifi_index = index;
	link->ifi_flags = link->ifi_change = IFF_UP;
	ask(socket, &m, "eth0 up");
	struct ifaddrmsg *a = begin(&m, RTM_NEWADDR, NLM_F_CREATE, sizeof *a);
	a->ifa_family = AF_INET;
	a->ifa_prefixlen = 24;
	a->ifa_index = index;
	add(&m, IFA_LOCAL, &ip, sizeof ip);
	ask(socket, &m, "address");
	struct rtmsg *r = begin(&m, RTM_NEWROUTE, NLM_F_CREATE, sizeof *r);
	r->rtm_family = AF_INET;
	r->rtm_table = RT_TABLE_MAIN;
	r->rtm_protocol = RTPROT_BOOT;
	r->rtm_type = RTN_UNICAST;
	add(&m, RTA_GATEWAY, &gateway, sizeof gateway);
	add(&m, RTA_OIF, &index, sizeof index);
	ask(socket, &m, "route");
}

// A new file system as a detached mount; options are key, value pairs, a null value a flag.
static int make(const char *type, const char **options)
{
	int context = must(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), type);
	for (; options && *options; options += 2) {
		int command = options[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
		must(syscall(SYS_fsconfig, context, command, options[0], options[1], 0), options[0]);
	}
	must(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0), type);
	int mount = must(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0), type);
	close(context);
	return mount;
}

static void attach(int mount, const char *path)
{
	must(syscall(SYS_move_mount, mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH), path);
	close(mount);
}

static void pivot(const char *root)
{
	must(chdir(root), root);
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount");
}

static void put(int dir, const char *file, const char *value)
{
	char path[128];
	snprintf(path, sizeof path, "floor/%s", file);
	int fd = must(openat(dir, path, O_WRONLY | O_CLOEXEC), path);
	must(write(fd, value, strlen(value)), path);
	close(fd);
}

static int has(int at, const char *controller)
{
	return !!strstr(hierarchies[at].name, controller);
}

// Before the mount namespace is emptied.
static void open_hierarchies(void)
{
	char line[4096], path[8192];
	FILE *f = fopen("/proc/self/cgroup", "re");
	while (f && fgets(line, sizeof line, f)) {
		char *names = strchr(line, ':') + 1, *own = strchr(names, ':');
		*own++ = 0;
		own[strcspn(own, "\n")] = 0;
		int v2 = !*names, at = hierarchy_count;
		const char *mount = !strncmp(names, "name=", 5) ? names + 5 : names;
		if (v2)
			mount = access("/sys/fs/cgroup/unified", F_OK) ? "." : "unified";
		hybrid |= v2 && *mount != '.';
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s%s", mount, own);
		int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			continue;
		snprintf(hierarchies[at].name, sizeof hierarchies[at].name, "%s", names);
		hierarchies[at].dir = dir;
		hierarchies[at].v2 = v2;
		hierarchy_count++;
	}
	if (f)
		fclose(f);
}

static void make_cgroups(void)
{
	for (int i = 0; i < hierarchy_count; i++)
		must(mkdirat(hierarchies[i].dir, "floor", 0755), "cgroup");
}

static void limit(void)
{
	for (int i = 0; i < hierarchy_count; i++) {
		int dir = hierarchies[i].dir;
		if (has(i, "cpuset")) {
			put(dir, "cpuset.cpus", "0");
			put(dir, "cpuset.mems", "0");
		}
		if (has(i, "memory"))
			put(dir, "memory.limit_in_bytes", "268435456");
		if (!strcmp(hierarchies[i].name, "cpu"))
			put(dir, "cpu.shares", "102");
		if (has(i, "devices")) {
			put(dir, "devices.deny", "a");
			put(dir, "devices.allow", "c *:* m");
			put(dir, "devices.allow", "b *:* m");
			put(dir, "devices.allow", "c 1:3 rwm");
			put(dir, "devices.allow", "c 136:* rwm");
		}
	}
}

static void open_cgroups(void)
{
	for (int i = 0; i < hierarchy_count; i++) {
		int v2 = hierarchies[i].v2, flags = v2 ? O_RDONLY | O_DIRECTORY : O_WRONLY;
		const char *path = v2 ? "floor" : "floor/tasks";
		hierarchies[i].own = must(openat(hierarchies[i].dir, path, flags | O_CLOEXEC), path);
		if (v2)
			unified = hierarchies[i].own;
	}
}

// Born in that of v2: to be moved there takes ten milliseconds more.
static pid_t fork_into(int flags)
{
	struct clone_args args = { .flags = flags, .exit_signal = SIGCHLD };
	if (unified >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = unified;
	}
	return must(syscall(SYS_clone3, &args, sizeof args), "clone3");
}

static void enter_cgroups(void)
{
	for (int i = 0; i < hierarchy_count; i++)
		if (!hierarchies[i].v2)
			must(write(hierarchies[i].own, "0", 1), "enter cgroup");
}

static void remove_cgroups(void)
{
	for (int i = 0; i < hierarchy_count; i++) {
		close(hierarchies[i].own);
		must(unlinkat(hierarchies[i].dir, "floor", AT_REMOVEDIR), "rmdir");
	}
}

static int overlay(void)
{
	// A volatile one is never to be mounted again.
	static int count;
	char writable[32], upper[64], work[64];
	snprintf(writable, sizeof writable, "/w/%d", count++);
	snprintf(upper, sizeof upper, "%s/upper", writable);
	snprintf(work, sizeof work, "%s/work", writable);
	must(mkdir(writable, 0755) | mkdir(upper, 0755) | mkdir(work, 0755), writable);
	const char *options[] = { "lowerdir+", "/low", "lowerdir+", "/low2", "upperdir", upper,
		"workdir", work, "volatile", 0, 0 };
	return make("overlay", options);
}

static void mounts(int root)
{
	attach(root, "/r");
	attach(make("proc", 0), "/r/proc");
	attach(make("tmpfs", 0), "/r/dev");
	must(mkdir("/r/dev/pts", 0755) | mkdir("/r/dev/mqueue", 0755) | mkdir("/r/dev/shm", 0755), "dev");
	attach(make("devpts", 0), "/r/dev/pts");
	attach(make("mqueue", 0), "/r/dev/mqueue");
	attach(make("sysfs", 0), "/r/sys");
	if (!hybrid && hierarchy_count == 1) {
		attach(make("cgroup2", 0), "/r/sys/fs/cgroup");
	} else {
		attach(make("tmpfs", 0), "/r/sys/fs/cgroup");
		for (int i = 0; i < hierarchy_count; i++) {
			const char *name = hierarchies[i].name;
			const char *named[] = { "none", 0, "name", name + 5, 0 }, *plain[] = { name, 0, 0 };
			if (hierarchies[i].v2 || strchr(name, ','))
				continue;
			char path[128];
			snprintf(path, sizeof path, "/r/sys/fs/cgroup/%s", name);
			mkdir(path, 0755);
			attach(make("cgroup", strncmp(name, "name=", 5) ? plain : named), path);
		}
	}
	pivot("/r");
}

// The pod: namespaces of its own, held by a process.
static pid_t pod(int ready, const int end[2])
{
	pid_t pid = must(fork(), "fork");
	if (pid)
		return pid;
	// The end is told by closing the other one.
	close(end[1]);
	char byte = 0;
	TIMED("start", "network namespace", must(unshare(CLONE_NEWNET), "netns"));
	TIMED("start", "IPC, UTS and mount namespaces",
	      must(unshare(CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS), "unshare"));
	double begun = now();
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int s = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	must(ioctl(s, SIOCSIFFLAGS, &lo), "loopback");
	close(s);
	took("start", "loopback", begun);
	TIMED("start", "shared memory", attach(make("tmpfs", 0), "/shm"));
	must(write(ready, &byte, 1), "ready");
	_exit(read(end[0], &byte, 1) < 0);
}

static pid_t container(int root, int executed)
{
	pid_t pid = fork_into(CLONE_NEWPID);
	if (pid)
		return pid;
	TIMED("start", "enter the cgroups", enter_cgroups());
	TIMED("start", "mount and cgroup namespaces", must(unshare(CLONE_NEWNS | CLONE_NEWCGROUP), "unshare"));
	TIMED("start", "mounts and pivot_root", mounts(root));
	fcntl(executed, F_SETFD, FD_CLOEXEC);
	must(execl("/bin/busybox", "sleep", "1000", (char *)0), "exec");
	_exit(1);
}

static void exec_in(pid_t target)
{
	int pidfd = must(syscall(SYS_pidfd_open, target, 0), "pidfd");
	pid_t outer = fork_into(0);
	if (!outer) {
		enter_cgroups();
		must(setns(pidfd, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWCGROUP), "setns");
		pid_t inner = must(fork(), "fork");
		if (!inner) {
			execl("/bin/busybox", "true", (char *)0);
			_exit(1);
		}
		int status;
		must(waitpid(inner, &status, 0), "wait");
		_exit(WEXITSTATUS(status));
	}
	int status;
	must(waitpid(outer, &status, 0), "wait");
	if (status)
		errx(1, "exec: status %d", status);
	close(pidfd);
}

// Gone for everybody long before the kernel answers: who asked waits for all processors.
static pid_t delete_wire(int socket)
{
	pid_t pid = must(fork(), "fork");
	if (pid) {
		while (if_nametoindex("near"))
			usleep(50);
		return pid;
	}
	struct message m;
	struct ifinfomsg *link = begin(&m, RTM_DELLINK, 0, sizeof *link);
	add(&m, IFLA_IFNAME, "near", 5);
	ask(socket, &m, "delete the wire");
	_exit(0);
}

static void one(int route, int bridge)
{
	int ready[2], end[2], executed[2];
	char byte;
	must(pipe2(ready, O_CLOEXEC) | pipe2(end, O_CLOEXEC), "pipe");
	double whole = now();
	pid_t holder = pod(ready[1], end);
	must(read(ready[0], &byte, 1), "pod");
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/ns/net", holder);
	int netns = must(open(path, O_RDONLY | O_CLOEXEC), path);
	snprintf(path, sizeof path, "/proc/self/ns/net");
	int own = must(open(path, O_RDONLY | O_CLOEXEC), path);
	TIMED("start", "veth pair, in a bridge", make_wire(route, bridge, netns));
	double begun = now();
	must(setns(netns, CLONE_NEWNET), "setns");
	int inside = netlink(), index = if_nametoindex("eth0");
	must(setns(own, CLONE_NEWNET), "setns");
	address(inside, index);
	took("start", "address and route", begun);
	TIMED("start", "cgroups", make_cgroups());
	TIMED("start", "limits and devices", limit());
	TIMED("start", "open the cgroups", open_cgroups());
	int root;
	TIMED("start", "overlay", root = overlay());
	must(pipe2(executed, O_CLOEXEC), "pipe");
	begun = now();
	pid_t first = container(root, executed[1]);
	close(executed[1]);
	if (read(executed[0], &byte, 1) != 0)
		errx(1, "the container was not executed");
	took("start", "fork to exec, all steps in it", begun);
	took("start", "all", whole);

	TIMED("exec", "all", exec_in(first));

	close(root);
	whole = now();
	kill(first, SIGKILL);
	TIMED("teardown", "kill and wait", waitpid(first, 0, 0));
	// Our descriptor keeps the network until the wire is deleted: with it, it would go when the
	// kernel has time.
	close(end[1]);
	TIMED("teardown", "end of the pod", waitpid(holder, 0, 0));
	TIMED("teardown", "remove the cgroups", remove_cgroups());
	pid_t deleting;
	TIMED("teardown", "delete the wire", deleting = delete_wire(route));
	took("teardown", "all", whole);
	waitpid(deleting, 0, 0);
	close(inside), close(netns), close(own);
	close(ready[0]), close(ready[1]), close(end[0]), close(executed[0]);
}

static void copy(const char *from, const char *to)
{
	int in = must(open(from, O_RDONLY | O_CLOEXEC), from);
	int out = must(open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755), to);
	char block[65536];
	for (ssize_t size; (size = must(read(in, block, sizeof block), from)) > 0;)
		must(write(out, block, size), to);
	close(in), close(out);
}

// Namespaces of our own, with a tmpfs for a root: a mount namespace is cloned by what is in it.
static void settle(const char *busybox)
{
	must(unshare(CLONE_NEWNET | CLONE_NEWNS), "unshare");
	must(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0), "private");
	must(mount("floor", "/mnt", "tmpfs", 0, 0), "tmpfs");
	const char *dirs[] = { "low", "low2", "w", "r", "shm", "proc", "low/bin", "low/proc", "low/dev", "low/sys" };
	must(chdir("/mnt"), "/mnt");
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
		must(mkdir(dirs[i], 0755), dirs[i]);
	copy(busybox, "low/bin/busybox");
	must(mount("proc", "proc", "proc", 0, 0), "proc");
	pivot(".");
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: floor BUSYBOX");
	table = mmap(0, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (table == MAP_FAILED)
		err(1, "mmap");
	open_hierarchies();
	settle(argv[1]);
	int route = netlink();
	make_bridge(route);
	int bridge = if_nametoindex("bridge");
	for (int i = 0; i < ROUNDS; i++)
		one(route, bridge);
	for (struct step *s = table->steps; s < table->steps + table->count; s++) {
		qsort(s->took, s->rounds, sizeof *s->took, by_size);
		printf("%s\t%s\t%.3f\n", s->verb, s->name, s->took[s->rounds / 2]);
	}
	return 0;
}
