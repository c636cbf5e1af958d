//! Guests with a kernel of their own: the folder comes by virtiofsd, one process for each VM.

use super::Scene;

/// The name by which the guest mounts it.
pub(super) const TAG: &str = "stork";

/// Where the folder is that the unit exports by itself.
const USUAL: &str = "/srv/views/";

fn socket(s: &Scene) -> String {
    format!("/run/stork-virtiofs/{}/sock", s.vm)
}

/// How to start virtiofsd, as lines with this before them.
fn start(s: &Scene, before: &str) -> String {
    let vm = &s.vm;
    let mut lines = Vec::new();
    if s.folder != format!("{USUAL}{vm}") {
        lines.push(format!("/etc/systemd/system/stork-virtiofsd@{vm}.service.d/view.conf says:"));
        lines.push("    [Service]".to_owned());
        lines.push(format!("    Environment=STORK_EXPORT={}", s.folder));
    }
    let unit = format!("stork-virtiofsd@{vm}");
    lines.push(format!("systemctl enable {unit} && systemctl start {unit}"));
    lines.push(format!("in the guest: mount -t virtiofs -o ro {TAG} {}", s.at));
    lines.iter().map(|l| format!("{before}{l}\n")).collect()
}

pub(super) fn libvirt(s: &Scene) -> String {
    let socket = socket(s);
    // Two hyphens end a comment, or are a mistake in it.
    let notes = start(s, "     ").replace("--", "- -");
    format!(
        "<!-- The first part goes beside <devices>, the second into it.\n{notes}-->\n\
         <memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n\
         <filesystem type='mount'>\n  <driver type='virtiofs' queue='1024'/>\n\
         \x20 <source socket='{socket}'/>\n  <target dir='{TAG}'/>\n</filesystem>\n"
    )
}

pub(super) fn qemu(s: &Scene) -> String {
    let (socket, notes) = (socket(s), start(s, "# "));
    format!(
        "# The view of the VM {vm}. SIZE is the memory of the machine, as in -m SIZE.\n{notes}\
         -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem \\\n\
         -chardev socket,id=stork,path={socket} \\\n\
         -device vhost-user-fs-pci,queue-size=1024,chardev=stork,tag={TAG}\n",
        vm = s.vm
    )
}

pub(super) fn proxmox(s: &Scene) -> String {
    let (socket, notes) = (socket(s), start(s, "# "));
    let (folder, at, machine) = (&s.folder, &s.at, &s.machine);
    format!(
        "# The view of the VM {vm}. A container:\n\
         pct set {machine} -mp0 {folder},mp={at},ro=1,backup=0\n\
         # Or a VM of SIZE MiB of memory:\n{notes}\
         qm set {machine} --args '-object memory-backend-memfd,id=mem,size=SIZEM,share=on \
         -machine memory-backend=mem -chardev socket,id=stork,path={socket} \
         -device vhost-user-fs-pci,queue-size=1024,chardev=stork,tag={TAG}'\n",
        vm = s.vm
    )
}
