// A bounded queue that restores the order of items from several threads.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace detect {

// Items are numbered from 0; `Put` waits while its item is too far ahead of the next one to be taken.
template <typename T>
class OrderedQueue {
 public:
  explicit OrderedQueue(size_t capacity) : slots_(capacity) {}

  // Returns false if the queue was closed; the item is then dropped.
  bool Put(size_t number, T item) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || number < next_ + slots_.size(); });
    if (closed_) {
      return false;
    }
    slots_[number % slots_.size()] = std::move(item);
    changed_.notify_all();
    return true;
  }

  // Returns the next item, or nothing if the queue was closed.
  std::optional<T> Take() {
    std::unique_lock<std::mutex> lock(mutex_);
    auto &slot = slots_[next_ % slots_.size()];
    changed_.wait(lock, [&] { return closed_ || slot.has_value(); });
    if (!slot.has_value()) {
      return std::nullopt;
    }
    std::optional<T> item = std::move(slot);
    slot.reset();
    ++next_;
    changed_.notify_all();
    return item;
  }

  // Wakes up all waiting threads.
  void Close() {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::optional<T>> slots_;
  size_t next_ = 0;
  bool closed_ = false;
};

}  // namespace detect
