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

/// The disk of an image, by its serial number in the guest; all VMs share the host's cache of it.
fn drive(image: &str) -> String {
    format!(
        "-drive file={image},format=raw,if=none,id={TAG},readonly=on \
         -device virtio-blk-pci,drive={TAG},serial={TAG}"
    )
}

fn libvirt_disk(image: &str) -> String {
    format!(
        "<!-- Into <devices>. A switch is seen at the guest's next start. -->\n\
         <disk type='file' device='disk'>\n  <driver name='qemu' type='raw'/>\n\
         \x20 <source file='{image}'/>\n  <target dev='vdz' bus='virtio'/>\n\
         \x20 <serial>{TAG}</serial>\n\
         \x20 <readonly/>\n</disk>\n"
    )
}

fn qemu_disk(s: &Scene, image: &str) -> String {
    let size = s.bytes.map_or_else(|| "BYTES".to_owned(), |n| n.to_string());
    format!(
        "# The view of the VM {vm}, as a disk. A switch is seen at the guest's next start.\n\
         {drive}\n\
         # Or as persistent memory, without a cache in the guest\n\
         # (-machine q35 -m SIZE,slots=1,maxmem=MORE):\n\
         # in the guest: mount -t erofs -o ro,dax=always /dev/pmem0 {place}\n\
         # -object memory-backend-file,id={TAG},share=on,readonly=on,mem-path={image},size={size} \
         -device virtio-pmem-pci,memdev={TAG}\n",
        vm = s.vm,
        drive = drive(image),
        place = s.place()
    )
}

pub(super) fn libvirt(s: &Scene) -> String {
    if let Some(image) = s.image() {
        return libvirt_disk(&image);
    }
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
    if let Some(image) = s.image() {
        return qemu_disk(s, &image);
    }
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
    if let Some(image) = s.image() {
        let (vm, machine, drive) = (&s.vm, &s.machine, drive(&image));
        return format!(
            "# The view of the VM {vm}, as a disk.\nqm set {machine} --args '{drive}'\n"
        );
    }
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
