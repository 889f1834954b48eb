# A task that fills 64 MiB of memory: twice what is reserved for it.

variable "id" {
  type = string
}

variable "memory_max" {
  type    = number
  default = null
}

job "memory" {
  id   = var.id
  type = "batch"

  group "memory" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "main" {
      driver = "promptflow"

      config {
        environment = "busybox"
        command     = "/bin/dd"
        args        = ["if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]
      }

      resources {
        cpu        = 50
        memory     = 32
        memory_max = var.memory_max
      }
    }
  }
}
