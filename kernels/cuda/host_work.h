// Work of the host in a device's queue, so that nobody waits for numbers that the host makes others of: what they are
// made of is copied out, the work makes them, they are copied back, and the device goes on, while the thread that has
// queued all of it is ahead.
//
//   const Tensor losses = queued_to_host(on_device), gradients = host_tensor(losses.shape(), DType::f32, device);
//   queue_host_work(device, [=] { … gradients from losses … });
//   backward(queued_to_device(gradients, device));
//
// On the cpu there is no queue: copies are the tensors themselves, and the work is done at once.
#pragma once

#include <functional>

#include "core/tensor.h"

namespace lathe::kernels {

// A tensor of the host's for copies from and to that device. Whatever is queued on the device may read and write it;
// the thread that queues may read it once it has waited for the device. Its memory is handed on when the last tensor
// goes, to others of the same device, whose queued work comes after.
Tensor host_tensor(const Shape& shape, DType dtype, Device device);

// Queues a copy of a contiguous tensor to one of host_tensor's kind.
Tensor queued_to_host(const Tensor& tensor);
// Queues a copy of one to the device.
Tensor queued_to_device(const Tensor& tensor, Device device);

// Queues `work`, which runs when what was queued before is done; what is queued after waits for it. On a card a thread
// of the driver's does it: it must not throw, nor call for a device, nor hold the last reference to memory of one, and
// owns what it uses. Captured as a part of a graph (graph.h) it is done in every replay, and kept until the last is
// done.
void queue_host_work(Device device, std::function<void()> work);

}  // namespace lathe::kernels
