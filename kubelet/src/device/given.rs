//! What a container needs for the devices it was given. Pure.

use crate::proto::deviceplugin::ContainerAllocateResponse;
use cri_proto::v1;
use std::collections::BTreeMap;

/// Of all its resources together.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Given {
    pub envs: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub mounts: Vec<v1::Mount>,
    pub devices: Vec<v1::Device>,
    pub cdi_devices: Vec<v1::CdiDevice>,
}

impl Given {
    /// Takes in one plugin's answer. What was said first stays.
    pub fn add(&mut self, answer: &ContainerAllocateResponse) {
        for (key, value) in &answer.envs {
            self.envs
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
        for (key, value) in &answer.annotations {
            let slot = self.annotations.entry(key.clone());
            slot.or_insert_with(|| value.clone());
        }
        for mount in &answer.mounts {
            let same = |m: &v1::Mount| m.container_path == mount.container_path;
            if !self.mounts.iter().any(same) {
                self.mounts.push(v1::Mount {
                    container_path: mount.container_path.clone(),
                    host_path: mount.host_path.clone(),
                    readonly: mount.read_only,
                    ..v1::Mount::default()
                });
            }
        }
        for device in &answer.devices {
            let same = |d: &v1::Device| d.container_path == device.container_path;
            if !self.devices.iter().any(same) {
                self.devices.push(v1::Device {
                    container_path: device.container_path.clone(),
                    host_path: device.host_path.clone(),
                    permissions: device.permissions.clone(),
                });
            }
        }
        for device in &answer.cdi_devices {
            self.add_cdi(&device.name);
        }
    }

    /// A device by its CDI name.
    pub fn add_cdi(&mut self, name: &str) {
        if !self.cdi_devices.iter().any(|d| d.name == name) {
            let name = name.to_owned();
            self.cdi_devices.push(v1::CdiDevice { name });
        }
    }

    /// The container's variables, after those of its devices: its own word counts.
    pub fn with_envs(&self, own: Vec<(String, String)>) -> Vec<(String, String)> {
        let named = |key: &String| own.iter().any(|(k, _)| k == key);
        let devices = self.envs.iter().filter(|(key, _)| !named(key));
        let devices: Vec<_> = devices.map(|(k, v)| (k.clone(), v.clone())).collect();
        devices.into_iter().chain(own).collect()
    }

    /// Puts the rest into a container's configuration.
    pub fn apply(self, config: &mut v1::ContainerConfig) {
        let mounts = std::mem::take(&mut config.mounts);
        config.mounts = self.mounts.into_iter().chain(mounts).collect();
        config.devices.extend(self.devices);
        config.cdi_devices.extend(self.cdi_devices);
        for (key, value) in self.annotations {
            config.annotations.entry(key).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_own_variables_win_over_those_of_devices() {
        let mut given = Given::default();
        given.add(&ContainerAllocateResponse {
            envs: [("A", "dev"), ("B", "dev")]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
            ..Default::default()
        });
        let envs = given.with_envs(vec![("B".into(), "own".into())]);
        let envs: Vec<_> = envs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(envs, [("A", "dev"), ("B", "own")]);
    }

    #[test]
    fn same_cdi_device_of_two_resources_is_asked_for_once() {
        let mut given = Given::default();
        given.add_cdi("v/c=1");
        given.add_cdi("v/c=1");
        assert_eq!(given.cdi_devices.len(), 1);
    }
}
