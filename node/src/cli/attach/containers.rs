//! Guests that share the host's kernel: a folder of the host, bound read-only.

use super::{Refused, Scene, Way, way};

/// Is the folder read-only to the guest, if containers get it at all?
fn read_only(s: &Scene) -> Result<bool, Refused> {
    match way(s.backend) {
        Way::Folder { writable } => Ok(!writable),
        Way::Export | Way::Image => Err(Refused {
            what: format!("a `{}` view is for hardware VMs", s.backend.name()),
            help: "--format libvirt, proxmox, qemu, fstab or cloud-init; or `backend = \"tree\"` \
                   for a container",
        }),
    }
}

pub(super) fn nspawn(s: &Scene) -> Result<String, Refused> {
    let (vm, machine, folder, at) = (&s.vm, &s.machine, &s.folder, &s.at);
    let key = if read_only(s)? { "BindReadOnly" } else { "Bind" };
    // Root of a container without a user namespace makes its own mounts writable again.
    let own = s.users.map_or_else(|| "pick".to_owned(), |(first, n)| format!("{first}:{n}"));
    let users = format!(
        "# Without users of its own, the container's root could remount the view and write into\n\
         # files that others share. If it must be so, use `backend = \"composefs\"`.\n\
         [Exec]\nPrivateUsers={own}\n"
    );
    Ok(format!(
        "# /etc/systemd/nspawn/{machine}.nspawn: the view of the VM {vm}, at {at}/{view}\n\
         {users}[Files]\n{key}={folder}:{at}:rbind\n",
        view = s.view
    ))
}

pub(super) fn incus(s: &Scene) -> Result<String, Refused> {
    let (vm, machine, folder, at) = (&s.vm, &s.machine, &s.folder, &s.at);
    // A mount below the folder comes along by `recursive` alone; each view is read-only by itself.
    let lock = if read_only(s)? { " readonly=true" } else { "" };
    Ok(format!(
        "# The view of the VM {vm}, at {at}/{view}. LXD and older Incus refuse `readonly` beside\n\
         # `recursive`: leave `readonly` out there; the view itself is read-only all the same.\n\
         incus config device add {machine} stork disk source={folder} path={at} \
         recursive=true propagation=rslave{lock}\n",
        view = s.view
    ))
}
